import { deepStrictEqual as same, ok } from "node:assert";
import { test } from "node:test";
import { acyclic, type Edge, layersOf, routed, rowsOf } from "./layout";

test("each node is in a layer after all that it depends on", () => {
  same(layersOf(5, [[0, 1], [1, 2], [0, 2], [3, 2]]), [0, 1, 2, 0, 0]);
});

test("a cycle and an edge to itself are drawn, too", () => {
  const edges: Edge[] = [[0, 1], [1, 2], [2, 0], [1, 1]];
  same(acyclic(3, edges), [[0, 1], [1, 2]]);
  same(layersOf(3, edges), [0, 1, 2]);
});

test("random graphs: all edges but those that close a cycle go forwards", () => {
  let seed = 7;
  const chance = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  for (let round = 0; round < 200; round += 1) {
    const count = 1 + chance(12);
    const edges: Edge[] = Array.from({ length: chance(25) }, () => [chance(count), chance(count)]);
    const layers = layersOf(count, edges);
    for (const [from, to] of acyclic(count, edges)) ok(layers[from]! < layers[to]!, JSON.stringify(edges));
    const forwards = edges.filter(([from, to]) => from < to);
    same(acyclic(count, forwards).length, forwards.length);
    same(rowsOf(layers, edges).flat().sort((a, b) => a - b), Array.from({ length: count }, (_, node) => node));
  }
});

test("neighbours are put near each other", () => {
  const rows = rowsOf([0, 0, 1, 1], [[0, 3], [1, 2]]);
  same(rows[0]!.map((node) => ({ 0: 3, 1: 2 })[node]), rows[1]);
});

test("negative layers come first", () => {
  same(rowsOf([0, -1, 1], [[1, 0], [0, 2]]), [[1], [0], [2]]);
});

test("an edge over several layers has a place in each of them", () => {
  const { rows, chains } = routed([0, 1, 2, 3], [[0, 1], [1, 2], [2, 3], [0, 3]]);
  same(chains, [[0, 1], [1, 2], [2, 3], [0, 4, 5, 3]]);
  same(rows.map((row) => [...row].sort()), [[0], [1, 4], [2, 5], [3]]);
});

test("an edge backwards or within a layer has no places", () => {
  same(routed([0, 1, 1], [[1, 0], [1, 2], [0, 0]]).chains, [[1, 0], [1, 2], [0, 0]]);
});
