// Where the nodes of a graph are drawn: in layers, each after all that its nodes depend on. Pure.

export type Edge = readonly [from: number, to: number];

const SWEEPS = 4;

/** Edges without those that close a cycle, in the order of a depth-first search. */
export function acyclic(count: number, edges: readonly Edge[]): Edge[] {
  const after: number[][] = Array.from({ length: count }, () => []);
  for (const [from, to] of edges) if (from !== to) after[from]!.push(to);
  const state = new Array<"new" | "open" | "done">(count).fill("new");
  const kept: Edge[] = [];
  for (let start = 0; start < count; start += 1) {
    const path = state[start] === "new" ? [{ node: start, next: 0 }] : [];
    if (path.length) state[start] = "open";
    while (path.length) {
      const top = path.at(-1)!;
      const to = after[top.node]![top.next];
      top.next += 1;
      if (to === undefined) {
        state[top.node] = "done";
        path.pop();
      } else if (state[to] !== "open") {
        kept.push([top.node, to]);
        if (state[to] === "new") {
          state[to] = "open";
          path.push({ node: to, next: 0 });
        }
      }
    }
  }
  return kept;
}

/** The layer of each node: one more than the last of those before it. */
export function layersOf(count: number, edges: readonly Edge[]): number[] {
  const kept = acyclic(count, edges);
  const waiting = new Array<number>(count).fill(0);
  const after: number[][] = Array.from({ length: count }, () => []);
  for (const [from, to] of kept) {
    waiting[to]! += 1;
    after[from]!.push(to);
  }
  const layers = new Array<number>(count).fill(0);
  const ready = waiting.flatMap((number, node) => (number === 0 ? [node] : []));
  for (let node = ready.pop(); node !== undefined; node = ready.pop()) {
    for (const to of after[node]!) {
      layers[to] = Math.max(layers[to]!, layers[node]! + 1);
      waiting[to]! -= 1;
      if (waiting[to] === 0) ready.push(to);
    }
  }
  return layers;
}

/** The nodes of each layer, ordered so that neighbours are near each other. */
export function rowsOf(layers: readonly number[], edges: readonly Edge[]): number[][] {
  const first = Math.min(0, ...layers);
  const rows: number[][] = Array.from({ length: Math.max(0, ...layers) - first + 1 }, () => []);
  layers.forEach((layer, node) => rows[layer - first]!.push(node));
  const near: number[][] = layers.map(() => []);
  for (const [from, to] of edges) {
    near[from]!.push(to);
    near[to]!.push(from);
  }
  const place = new Array<number>(layers.length).fill(0);
  const note = (row: number[]) => row.forEach((node, index) => (place[node] = (index + 0.5) / row.length));
  rows.forEach(note);
  const middle = (node: number) => {
    const others = near[node]!.filter((other) => layers[other] !== layers[node]);
    return others.length ? others.reduce((sum, other) => sum + place[other]!, 0) / others.length : place[node]!;
  };
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) {
      const wanted = new Map(row.map((node) => [node, middle(node)]));
      row.sort((a, b) => wanted.get(a)! - wanted.get(b)! || a - b);
      note(row);
    }
  }
  return rows;
}
