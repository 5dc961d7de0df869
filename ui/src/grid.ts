// The tasks of a workflow as squares: which one lies where. Pure.

import type { Matrix, TaskRun } from "./wire";

/** Tasks of one template, which begin in a row of their own. */
export interface Block {
  template: string;
  /** Of its first task among all. */
  start: number;
  count: number;
}

interface Placed extends TaskRun {
  start: number;
}

/** The tasks in their order: by template, then by id. */
export class Tasks {
  readonly blocks: Block[] = [];
  readonly statuses: Uint8Array;
  /** By id, and by place. */
  private readonly byId: Placed[];
  private readonly byPlace: Placed[] = [];
  private readonly expected: number;

  constructor(pages: Matrix[]) {
    this.expected = pages.at(-1)?.is_cut ? pages[0]!.total : 0;
    const runs: (TaskRun & { letters: string })[] = [];
    for (const page of pages) {
      let at = 0;
      for (const run of page.runs) {
        runs.push({ ...run, letters: page.statuses.slice(at, at + run.count) });
        at += run.count;
      }
    }
    const names = [...new Set(runs.map((run) => run.template))];
    this.statuses = new Uint8Array(runs.reduce((sum, run) => sum + run.count, 0));
    let start = 0;
    for (const template of names) {
      const block = { template, start, count: 0 };
      for (const run of runs.filter((one) => one.template === template)) {
        this.byPlace.push({ template, first: run.first, count: run.count, start });
        for (let at = 0; at < run.count; at += 1) this.statuses[start + at] = run.letters.charCodeAt(at);
        start += run.count;
        block.count += run.count;
      }
      this.blocks.push(block);
    }
    this.byId = [...this.byPlace].sort((a, b) => a.first - b.first);
  }

  get count(): number {
    return this.statuses.length;
  }

  /** How many there will be when all are read. */
  get total(): number {
    return Math.max(this.count, this.expected);
  }

  /** The id of the task at a place. */
  idAt(place: number): number {
    const run = last(this.byPlace, (one) => one.start <= place)!;
    return run.first + place - run.start;
  }

  /** The place of a task; undefined: it is not among them. */
  placeOf(id: number): number | undefined {
    const run = last(this.byId, (one) => one.first <= id);
    return run && id < run.first + run.count ? run.start + id - run.first : undefined;
  }

  /** Take changes; false: there are too many, or tasks that came or went. */
  change(changes: Matrix, removed: string): boolean {
    if (changes.is_cut) return false;
    let at = 0;
    for (const run of changes.runs) {
      for (let id = run.first; id < run.first + run.count; id += 1) {
        const letter = changes.statuses.charCodeAt(at);
        const place = this.placeOf(id);
        if (place === undefined ? letter !== removed.charCodeAt(0) : letter === removed.charCodeAt(0)) return false;
        if (place !== undefined) this.statuses[place] = letter;
        at += 1;
      }
    }
    return true;
  }
}

/** The last of sorted items for which something holds that holds for all before it. */
function last<T>(items: T[], holds: (item: T) => boolean): T | undefined {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(items[middle]!)) low = middle + 1;
    else high = middle;
  }
  return items[low - 1];
}

/** Where squares lie: so many in a row, each template from a new row on. */
export class Layout {
  readonly rows: number;
  private readonly firstRows: number[] = [];

  constructor(
    private readonly blocks: Block[],
    readonly columns: number,
  ) {
    let row = 0;
    for (const block of blocks) {
      this.firstRows.push(row);
      row += Math.ceil(block.count / columns);
    }
    this.rows = row;
  }

  /** The places in a row: from, and how many; and of which template. */
  row(number: number): { start: number; count: number; block: Block } | undefined {
    let index = this.firstRows.length - 1;
    while (index > 0 && this.firstRows[index]! > number) index -= 1;
    const block = this.blocks[index];
    if (!block || number < 0 || number >= this.rows) return undefined;
    const before = (number - this.firstRows[index]!) * this.columns;
    return { start: block.start + before, count: Math.min(this.columns, block.count - before), block };
  }
}
