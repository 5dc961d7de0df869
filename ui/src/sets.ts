// Actions on sets of tasks, in words. Pure.

import { TASK_STATUS, type HoldResponse, type TaskSetPlan, type TaskUpdateResponse } from "./wire";
import { count, numberOf } from "./words";

export type Action = "hold" | "release" | "rerun";

export const ACTIONS: readonly Action[] = ["hold", "release", "rerun"];
export const VERB: Record<Action, string> = { hold: "Hold", release: "Release", rerun: "Rerun" };
const DONE: Record<Action, string> = { hold: "held", release: "released", rerun: "rerun" };
/** What takes an action back. */
export const INVERSE: Partial<Record<Action, Action>> = { hold: "release", release: "hold" };

/** Which tasks: those that are named, or all that match a filter. */
export interface TaskSet {
  task_ids?: number[];
  status?: string[];
  array?: string;
  name?: string;
}

/** 50 REGISTERING, 7 QUEUED; the most frequent first. */
export function statusesText(counts: Record<string, number>): string {
  return Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([letter, number]) => `${count(number)} ${(TASK_STATUS[letter] ?? letter).replaceAll("_", " ")}`)
    .join(", ");
}

/** What an action would do, one sentence each. */
export function planTexts(action: Action, plan: TaskSetPlan, workflowId: number): string[] {
  const changing = plan.task_ids.length;
  if (!changing) {
    return [`Nothing to do: none of ${numberOf(plan.selected, "selected task")} can be ${DONE[action]} now.`];
  }
  const found = [`${numberOf(changing, "task")} will be ${DONE[action]}: ${statusesText(plan.counts)}.`];
  if (plan.added) found.push(`${count(plan.added)} of them ${plan.added === 1 ? "is" : "are"} downstream of the selected tasks.`);
  if (plan.unchanged) found.push(`${numberOf(plan.unchanged, "selected task")} will not change.`);
  if (plan.live && action === "hold") {
    found.push(`Up to ${numberOf(plan.live, "attempt")} may be running and will finish; an attempt that has not started is recalled.`);
  }
  if (plan.live && action === "rerun") found.push(`Up to ${numberOf(plan.live, "running attempt")} will be stopped, uncharged.`);
  if (action === "rerun" && !plan.is_active) {
    found.push(`The workflow is not running: they run at the next resume: jobmon workflow resume ${workflowId}.`);
  }
  return found;
}

/** What holding or releasing did. */
export function heldText(action: Action, planned: number, answer: HoldResponse): string {
  const others = planned - answer.changed;
  const recalled = answer.recalled ? ` ${numberOf(answer.recalled, "attempt")} recalled.` : "";
  const left = others ? ` ${numberOf(others, "task")} had changed meanwhile.` : "";
  return `${numberOf(answer.changed, "task")} ${DONE[action]}.${recalled}${left}`;
}

/** What ordering a rerun did. */
export function rerunText(answer: TaskUpdateResponse): string {
  const stopped = answer.to_kill ? ` ${numberOf(answer.to_kill, "attempt")} being stopped; their tasks follow.` : "";
  return `${numberOf(answer.changed, "task")} will be rerun.${stopped}`;
}

/** A limit on how many tasks run at once. */
export function limitText(limit: number, unlimited: number): string {
  if (limit === 0) return "paused";
  return limit >= unlimited ? "no limit" : `at most ${count(limit)} at once`;
}
