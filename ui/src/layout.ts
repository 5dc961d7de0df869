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

/** With more places on the way than this, long edges go straight. */
const PLACES_MAX = 2_000;

export interface Routed {
  /** Nodes by layer; numbers from `layers.length` on are places where a long edge passes through a layer. */
  rows: number[][];
  /** Of each edge: its nodes, and the places in between. */
  chains: number[][];
}

/** Order the nodes, and lead edges over several layers around the nodes in between. */
export function routed(layers: readonly number[], edges: readonly Edge[]): Routed {
  const span = ([from, to]: Edge) => layers[to]! - layers[from]!;
  const places = edges.reduce((sum, edge) => sum + Math.max(0, span(edge) - 1), 0);
  if (places > PLACES_MAX) return { rows: rowsOf(layers, edges), chains: edges.map((edge) => [...edge]) };
  const all = [...layers];
  const chains = edges.map((edge) => {
    const between = Array.from({ length: Math.max(0, span(edge) - 1) }, (_, step) => all.push(layers[edge[0]]! + step + 1) - 1);
    return [edge[0], ...between, edge[1]];
  });
  const steps = chains.flatMap((chain) => chain.slice(1).map((to, step): Edge => [chain[step]!, to]));
  return { rows: rowsOf(all, steps), chains };
}
