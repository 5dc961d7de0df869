import { deepStrictEqual as same } from "node:assert";
import { test } from "node:test";
import { diff } from "./diff";

test("words that differ are removed and added, the rest is the same", () => {
  same(diff("awk -f, x", "awk -F, x"), [["same", "awk "], ["removed", "-f,"], ["added", "-F,"], ["same", " x"]]);
  same(diff("a", "a"), [["same", "a"]]);
  same(diff("", "b"), [["added", "b"]]);
  same(diff("", ""), []);
});

test("both texts can be put together again from the parts", () => {
  let seed = 3;
  const chance = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const text = () => Array.from({ length: chance(12) }, () => "abc "[chance(4)]).join("");
  for (let round = 0; round < 300; round += 1) {
    const [from, to] = [text(), text()];
    const parts = diff(from, to);
    same(parts.filter(([kind]) => kind !== "added").map(([, part]) => part).join(""), from);
    same(parts.filter(([kind]) => kind !== "removed").map(([, part]) => part).join(""), to);
  }
});

test("very long texts are not compared word by word", () => {
  const long = "x ".repeat(2_000);
  same(diff(long, "y").map(([kind]) => kind), ["removed", "added"]);
});
