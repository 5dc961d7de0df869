import { deepStrictEqual as same } from "node:assert";
import { test } from "node:test";
import { matches } from "./filter";
import type { TaskSummary } from "./wire";

const task = (name: string, status: string, array_name = "fit"): TaskSummary => ({
  task_id: 1, name, status, array_name, num_attempts: 0, max_attempts: 1, command: "", status_at: "", node_args: {}, held: false, priority: 0,
});
const EVERY = { status: "", template: "", name: "" };

test("a task matches by status, template and name at once", () => {
  const one = task("fit_12 (a+b)", "F");
  same(matches(one, EVERY), true);
  same(["FATAL", "DONE", "REMOVED"].map((status) => matches(one, { ...EVERY, status })), [true, false, false]);
  same(["fit", "fi"].map((template) => matches(one, { ...EVERY, template })), [true, false]);
  same(["FIT", "_12", "(a+b)", "fit*b)", "fit*12", "*12*", "x"].map((name) => matches(one, { ...EVERY, name })),
    [true, true, true, true, false, true, false]);
  same(matches(one, { status: "FATAL", template: "fit", name: "13" }), false);
});
