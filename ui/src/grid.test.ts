import { deepStrictEqual as same, ok } from "node:assert";
import { test } from "node:test";
import { Layout, Tasks } from "./grid";

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
