import { deepStrictEqual as same } from "node:assert";
import { test } from "node:test";
import { EventParser } from "./events";

const TEXT = ':\n\nevent: view\nid: a.b\ndata: {"text":"x: y"}\n\n:\n\nevent: workflow\nid: a.c\ndata: {}\n\n';
const FOUND = [
  { name: "view", id: "a.b", data: '{"text":"x: y"}' },
  { name: "workflow", id: "a.c", data: "{}" },
];

test("a stream of events is read wherever it is cut into pieces", () => {
  for (let size = 1; size <= TEXT.length; size += 1) {
    const parser = new EventParser();
    const found = [];
    for (let at = 0; at < TEXT.length; at += size) found.push(...parser.take(TEXT.slice(at, at + size)));
    same(found, FOUND);
  }
});

test("an event without its end is not taken", () => {
  same(new EventParser().take(TEXT.slice(0, -1)), FOUND.slice(0, 1));
});
