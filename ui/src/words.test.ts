import { deepStrictEqual as same, ok } from "node:assert";
import { test } from "node:test";
import { nextPause, pauseAfter, PAUSE_MAX, HIDDEN_EVERY, SLOWEST_EVERY } from "./pace";
import { address, parsed } from "./query";
import { added, bytes, duration, grouped, localTime, plain, Rate, rateText, splitAtCommands, total, utcTime, wanted } from "./words";

test("durations and sizes have units", () => {
  same([0.0123, 12.34, 3725, 90_061, null].map(duration), ["12 ms", "12.3 s", "1:02:05 h", "1 d 1:01:01", "–"]);
  same([999, 1_250_000, 2 ** 31, 2 ** 61, null].map(bytes), ["999 B", "1.2 MiB", "2.0 GiB", "2048.0 PiB", "–"]);
  same([0, 0.01, 0.5, 3.21, 250].map(rateText), ["0.0 per h", "36.0 per h", "30.0 per min", "3.2 per s", "250 per s"]);
});

test("times are local and short if they are of today", () => {
  const now = new Date(2026, 10, 21, 15, 0, 0);
  same(localTime(new Date(2026, 10, 21, 9, 5, 7), now), "09:05:07");
  same(localTime(new Date(2026, 10, 20, 9, 5, 7), now), "2026-11-20 09:05");
  same(utcTime(new Date(Date.UTC(2026, 0, 2, 3, 4, 5))), "2026-01-02 03:04:05 UTC");
});

test("counts by status become counts by group, and none is lost", () => {
  const counts = added([{ G: 1, Q: 2 }, { R: 3, O: 4, G: 10 }, { D: 5, F: 6, S: 7, "?": 1 }]);
  same(grouped(counts), { PENDING: 14, RUNNING: 7, DONE: 5, FATAL: 6, SKIPPED: 7 });
  same(total(counts), 39);
});

test("what steers a terminal or turns text around is made visible", () => {
  same(plain("a\x1b[31m\tb\nc\u202ed\x9f"), "a␛[31m\tb\nc\ufffdd\ufffd");
});

test("commands in sentences can be copied if nobody else chose a part of them", () => {
  same(splitAtCommands("It is held. To release it: jobmon task release 17"), [
    "It is held. To release it: ",
    "jobmon task release 17",
    "",
  ]);
  same(splitAtCommands("Stop it (first: jobmon workflow stop 5)."), ["Stop it (first: ", "jobmon workflow stop 5", ")."]);
  for (const text of ["To release: jobmon task release ID", "to continue: jobmon workflow concurrency --template x;rm 5", "x"]) {
    same(splitAtCommands(text), [text]);
  }
});

test("a search is for part of a name", () => {
  same(["", "sim", "sim*7"].map(wanted), ["", "*sim*", "sim*7"]);
});

test("a rate is that of the last seconds", () => {
  const rate = new Rate(10);
  same([rate.add(0, 0), rate.add(0.5, 9)], [undefined, undefined]);
  same(rate.add(10, 100), 10);
  same(rate.add(20, 100), 0);
});

test("the server is asked less often if it takes long or nobody looks, and after failures ever less up to a bound", () => {
  same([20, 300, 9000].map((took) => pauseAfter(1000, took, false)), [1000, 6000, SLOWEST_EVERY]);
  same(pauseAfter(15_000, 900, false), 15_000);
  same([pauseAfter(1000, 20, true), pauseAfter(null, 20, true)], [HIDDEN_EVERY, null]);
  let pause = 250;
  for (let tries = 0; tries < 20; tries += 1) pause = nextPause(pause);
  ok(pause === PAUSE_MAX);
});

test("places are parsed", () => {
  same(parsed("#/workflows/5?status=FATAL&name=a%20b"), { path: ["workflows", "5"], query: { status: "FATAL", name: "a b" } });
  same(parsed(""), { path: [], query: {} });
  same(address("/tasks/3", { name: "a&b", status: ["F", "D"], after: null }), "#/tasks/3?name=a%26b&status=F&status=D");
});
