import { deepStrictEqual as same } from "node:assert";
import { test } from "node:test";
import { folded, pieces, splitAt } from "./output";

test("a progress bar is what a terminal shows in the end", () => {
  same(folded("start\r\n  0%|   |\r 50%|#  |\r100%|###|\nend"), "start\n100%|###|\nend");
  same(folded("  0%\r 50%\r"), " 50%");
  same(folded("a\r\r\nb"), "a\nb");
});

test("colours become styles, and what moves a cursor is left out", () => {
  same(pieces("a\x1b[1;31mred\x1b[0m \x1b[32mgreen\x1b[39m\x1b[2Kb"), [
    { text: "a", style: "" },
    { text: "red", style: "bold ink-red" },
    { text: " ", style: "" },
    { text: "green", style: "ink-green" },
    { text: "b", style: "" },
  ]);
  same(pieces("\x1b[38;5;196mx\x1b[48;2;1;2;3my"), [
    { text: "x", style: "" },
    { text: "y", style: "" },
  ]);
});

test("other control characters and links stay visible or vanish, and run nothing", () => {
  same(pieces("\x1b]8;;http://x\x07text\x1b]8;;\x07"), [{ text: "text", style: "" }]);
  same(pieces("a\x1bcb\u202e"), [{ text: "a␛cb\ufffd", style: "" }]);
});

test("a word is found in upper or lower case, whatever signs it has", () => {
  same(splitAt("An Error, an error", "ERROR"), ["An ", "Error", ", an ", "error", ""]);
  same(splitAt("a.b axb a.b", "a.b"), ["", "a.b", " axb ", "a.b", ""]);
  same(splitAt("text", ""), ["text"]);
});
