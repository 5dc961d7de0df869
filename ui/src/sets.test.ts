import { deepStrictEqual as same } from "node:assert";
import { test } from "node:test";
import { changedText, editProblem, editText, heldText, limitText, planTexts, priorityOf } from "./sets";
import { areas, peakOf } from "./stack";

const PLAN = { snapshot: 7, task_ids: [1, 2, 3], counts: { Q: 1, G: 2 }, selected: 4, unchanged: 1, added: 0, live: 0, is_active: true, priority: 0 };

test("a preview says how many tasks change, in which statuses, and what is not affected", () => {
  same(planTexts("hold", PLAN, 5), ["3 tasks will be held: 2 REGISTERING, 1 QUEUED.", "1 selected task will not change."]);
  same(planTexts("hold", { ...PLAN, unchanged: 0, live: 1 }, 5).at(-1),
    "Up to 1 attempt may be running and will finish; an attempt that has not started is recalled.");
});

test("a preview of a rerun counts tasks downstream, attempts that are stopped, and says when it runs", () => {
  const plan = { ...PLAN, task_ids: [1], counts: { D: 1 }, selected: 1, unchanged: 0, added: 1, live: 2, is_active: false };
  same(planTexts("rerun", plan, 5), [
    "1 task will be rerun: 1 DONE.",
    "1 of them is downstream of the selected tasks.",
    "Up to 2 running attempts will be stopped, uncharged.",
    "The workflow is not running: they run at the next resume: jobmon workflow resume 5.",
  ]);
});

test("a preview of nothing says so", () => {
  same(planTexts("release", { ...PLAN, task_ids: [], counts: {} }, 5), [
    "Nothing to do: none of 4 selected tasks can be released now.",
  ]);
});

test("a result counts what changed meanwhile", () => {
  same(heldText("hold", 3, { changed: 2, recalled: 1, unchanged: 1 }), "2 tasks held. 1 attempt recalled. 1 task had changed meanwhile.");
  same(heldText("release", 1, { changed: 1, recalled: 0, unchanged: 0 }), "1 task released.");
  same(changedText("rerun", { changed: 1, to_kill: 2, workflow_status: "R" }), "1 task will be rerun. 2 attempts being stopped; their tasks follow.");
});

test("limits are words where they are no limits", () => {
  same([0, 5, 100].map((limit) => limitText(limit, 100)), ["paused", "at most 5 at once", "no limit"]);
});

test("areas are stacked, and the peak is that of their sum", () => {
  const series = [{ running: [1, 0] }, { running: [1, 4] }];
  same(peakOf(series), { number: 4, tile: 1 });
  same(peakOf([]), { number: 0, tile: 0 });
  same(areas(series, 10, 8), [
    "0.0,6.0 5.0,6.0 5.0,8.0 10.0,8.0 10.0,8.0 5.0,8.0 5.0,8.0 0.0,8.0",
    "0.0,4.0 5.0,4.0 5.0,0.0 10.0,0.0 10.0,8.0 5.0,8.0 5.0,6.0 0.0,6.0",
  ]);
});

test("a preview of a skip says what is left out, and what it means for tasks downstream", () => {
  same(planTexts("skip", PLAN, 5), [
    "3 tasks will be skipped: 2 REGISTERING, 1 QUEUED.",
    "1 selected task will not change (done or in progress).",
    "Tasks downstream will run as if these were done.",
  ]);
});

test("a preview of a priority names the one that it replaces, if that is the same for all", () => {
  const plan = { ...PLAN, unchanged: 0 };
  same(planTexts("priority", plan, 5, 7), ["3 tasks will be set to priority 7 (now 0): 2 REGISTERING, 1 QUEUED."]);
  same(planTexts("priority", { ...plan, priority: null }, 5, -7), [
    "3 tasks will be set to priority -7: 2 REGISTERING, 1 QUEUED.",
  ]);
});

test("only numbers within the bounds are priorities", () => {
  same(["5", " -1000 ", "+3", "1001", "", "x", "1.5"].map((text) => priorityOf(text, 1000)), [5, -1000, 3, null, null, null, null]);
});

test("an edit says what it changes, or what is missing", () => {
  const nothing = { memory: "", runtime: "", cores: "", attempts: "", isReset: false };
  same(editProblem(nothing), "Fill in what to change; the rest stays as it is.");
  same(editProblem({ ...nothing, attempts: "0" }), "Attempts: a number of at least 1.");
  same(editProblem({ ...nothing, attempts: "2" }), "");
  same(editProblem({ ...nothing, isReset: true }), "");
  same(editText({ ...nothing, memory: "8G", attempts: "4" }), "Their next attempts: memory 8G, attempts at most 4.");
});
