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

/** Opacity, the highest byte of a pixel, of squares that are not selected. */
const PALE = 0x50 << 24;
const COLOUR_BITS = 0x00ffffff;
/** Squares with smaller sides have no gap. */
const GAP_FROM = 4;

/** What is in view. */
export interface View {
  /** Of a square, with its gap; and of the image, in pixels. */
  side: number;
  width: number;
  height: number;
  /** How many pixels are above the image. */
  scrolled: number;
  /** The places that are selected, both included; the others are paler. Null: all are alike. */
  range: readonly [first: number, last: number] | null;
}

/** Draw the rows that are in view. `colours`: by letter, as the numbers that images hold. */
export function draw(pixels: Uint32Array, statuses: Uint8Array, layout: Layout, colours: Uint32Array, view: View): void {
  const { side, width, height, scrolled } = view;
  const [first, last] = view.range ?? [0, statuses.length];
  const pale = colours.map((colour) => ((colour & COLOUR_BITS) | PALE) >>> 0);
  const drawn = side >= GAP_FROM ? side - 1 : side;
  pixels.fill(0);
  for (let number = Math.floor(scrolled / side); number * side < scrolled + height; number += 1) {
    const row = layout.row(number);
    if (!row) break;
    const top = Math.max(0, number * side - scrolled);
    const bottom = Math.min(height, number * side - scrolled + drawn);
    if (top >= bottom) continue;
    const start = top * width;
    for (let column = 0, at = start; column < row.count; column += 1, at += side) {
      const place = row.start + column;
      const colour = (place >= first && place <= last ? colours : pale)[statuses[place]!]!;
      for (let pixel = at; pixel < at + drawn; pixel += 1) pixels[pixel] = colour;
    }
    for (let y = top + 1; y < bottom; y += 1) pixels.copyWithin(y * width, start, start + width);
  }
}
