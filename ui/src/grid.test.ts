import { deepStrictEqual as same, ok } from "node:assert";
import { test } from "node:test";
import { draw, Layout, Tasks } from "./grid";

const page = (runs: [string, number, number][], statuses: string, is_cut = false) => ({
  snapshot: 1,
  runs: runs.map(([template, first, count]) => ({ template, first, count })),
  statuses,
  is_cut,
  total: 9,
});
const letters = (tasks: Tasks) => String.fromCharCode(...tasks.statuses);

test("tasks lie by template, then by id, over the bounds of pages", () => {
  const tasks = new Tasks([page([["a", 1, 2], ["b", 3, 2]], "GQDF", true), page([["a", 7, 1], ["b", 8, 1]], "RD")]);
  same(letters(tasks), "GQRDFD");
  same(tasks.blocks, [
    { template: "a", start: 0, count: 3 },
    { template: "b", start: 3, count: 3 },
  ]);
  same([tasks.count, tasks.total, new Tasks([page([["a", 1, 2]], "GQ", true)]).total], [6, 6, 9]);
  same([0, 1, 2, 3, 4, 5].map((place) => tasks.idAt(place)), [1, 2, 7, 3, 4, 8]);
  same([1, 2, 7, 3, 4, 8, 5, 99, 0].map((id) => tasks.placeOf(id)), [0, 1, 2, 3, 4, 5, undefined, undefined, undefined]);
});

test("changes are taken, and what came or went asks for everything anew", () => {
  const tasks = new Tasks([page([["a", 1, 3]], "GGG")]);
  ok(tasks.change(page([["a", 3, 1], ["a", 1, 1]], "DR"), "X"));
  same(letters(tasks), "RGD");
  ok(!tasks.change(page([["a", 9, 1]], "G"), "X"));
  ok(!tasks.change(page([["a", 1, 1]], "X"), "X"));
  ok(tasks.change(page([["a", 9, 1]], "X"), "X"));
  ok(!tasks.change(page([], "", true), "X"));
  same(new Tasks([page([], "")]).count, 0);
});

test("each template begins in a row of its own", () => {
  const layout = new Layout([{ template: "a", start: 0, count: 3 }, { template: "b", start: 3, count: 2 }], 2);
  same(layout.rows, 3);
  same([0, 1, 2].map((row) => [layout.row(row)!.start, layout.row(row)!.count]), [[0, 2], [2, 1], [3, 2]]);
  same([layout.row(3), layout.row(-1)], [undefined, undefined]);
});

/** The image as text: a sign for each pixel. */
function image(side: number, scrolled: number, range: readonly [number, number] | null): string[] {
  const layout = new Layout([{ template: "a", start: 0, count: 3 }, { template: "b", start: 3, count: 2 }], 2);
  const statuses = Uint8Array.from("GDRFQ", (letter) => letter.charCodeAt(0));
  const colours = Uint32Array.from({ length: 256 }, (_, letter) => 0xff000000 + letter);
  const [width, height] = [2 * side + 1, 2 * side + 1];
  const pixels = new Uint32Array(width * height).fill(7); // of an earlier image
  draw(pixels, statuses, layout, colours, { side, width, height, scrolled, range });
  const signs = [...pixels].map((pixel) => {
    const sign = String.fromCharCode(pixel & 0xff);
    return pixel === 0 ? "." : pixel >>> 24 === 0xff ? sign : sign.toLowerCase();
  });
  return Array.from({ length: height }, (_, y) => signs.slice(y * width, (y + 1) * width).join(""));
}

test("the squares in view are drawn, over what was there, and those that are not selected are paler", () => {
  same(image(1, 0, null), ["GD.", "R..", "FQ."]);
  same(image(2, 1, null), ["GGDD.", "RR...", "RR...", "FFQQ.", "FFQQ."]);
  same(image(2, 0, [1, 3]), ["ggDD.", "ggDD.", "RR...", "RR...", "FFqq."]);
  same(image(4, 2, null), [
    "GGG.DDD..",
    ".........",
    ...Array<string>(3).fill("RRR......"),
    ".........",
    ...Array<string>(3).fill("FFF.QQQ.."),
  ]);
});
