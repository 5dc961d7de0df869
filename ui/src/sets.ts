// Actions on sets of tasks, in words. Pure.

import { TASK_STATUS, type HoldResponse, type TaskSetPlan, type TaskUpdateResponse } from "./wire";
import { count, numberOf } from "./words";

export type Action = "hold" | "release" | "rerun" | "skip" | "mark done" | "priority" | "edit";

export const ACTIONS: readonly Action[] = ["hold", "release", "rerun", "skip", "mark done", "priority", "edit"];
export const VERB: Record<Action, string> = {
  hold: "Hold",
  release: "Release",
  rerun: "Rerun",
  skip: "Skip",
  "mark done": "Mark as done",
  priority: "Priority",
  edit: "Edit",
};
const DONE: Record<Action, string> = {
  hold: "held",
  release: "released",
  rerun: "rerun",
  skip: "skipped",
  "mark done": "marked as done",
  priority: "given another priority",
  edit: "edited",
};
/** What takes an action back. */
export const INVERSE: Partial<Record<Action, Action>> = { hold: "release", release: "hold" };
/** The status that an action sets, as a letter. */
export const STATUS_AFTER: Partial<Record<Action, string>> = { rerun: "G", skip: "S", "mark done": "D" };
/** Which tasks an action leaves as they are. */
const EXCEPT: Partial<Record<Action, string>> = {
  skip: "done or in progress",
  "mark done": "done or in progress",
  priority: "finished, or of this priority already",
  edit: "done, or expansions",
};

/** Which tasks: those that are named, or all that match a filter. */
export interface TaskSet {
  task_ids?: number[];
  status?: string[];
  array?: string;
  name?: string;
  host?: string;
}

/** 50 REGISTERING, 7 QUEUED; the most frequent first. */
export function statusesText(counts: Record<string, number>): string {
  return Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([letter, number]) => `${count(number)} ${(TASK_STATUS[letter] ?? letter).replaceAll("_", " ")}`)
    .join(", ");
}

/** What an action would do, one sentence each. */
export function planTexts(action: Action, plan: TaskSetPlan, workflowId: number, priority?: number): string[] {
  const changing = plan.task_ids.length;
  const except = EXCEPT[action];
  if (!changing) {
    return [
      `Nothing to do: none of ${numberOf(plan.selected, "selected task")} can be ${DONE[action]} now${except ? ` (${except})` : ""}.`,
    ];
  }
  const what = priority === undefined ? DONE[action] : `set to priority ${priority}${nowText(plan)}`;
  const found = [`${numberOf(changing, "task")} will be ${what}: ${statusesText(plan.counts)}.`];
  if (plan.added) found.push(`${count(plan.added)} of them ${plan.added === 1 ? "is" : "are"} downstream of the selected tasks.`);
  if (plan.unchanged) {
    found.push(`${numberOf(plan.unchanged, "selected task")} will not change${except ? ` (${except})` : ""}.`);
  }
  if (plan.live) found.push(...liveTexts(action, plan.live));
  if (action === "skip") found.push("Tasks downstream will run as if these were done.");
  if (action === "mark done") found.push("They will not run; tasks downstream will find whatever results are there.");
  if (action === "rerun" && !plan.is_active) {
    found.push(`The workflow is not running: they run at the next resume: jobmon workflow resume ${workflowId}.`);
  }
  return found;
}

const nowText = (plan: TaskSetPlan): string => (plan.priority === null ? "" : ` (now ${plan.priority})`);

/** What happens to attempts that may be running. */
function liveTexts(action: Action, live: number): string[] {
  const attempts = numberOf(live, "attempt");
  if (action === "hold") return [`Up to ${attempts} may be running and will finish; an attempt that has not started is recalled.`];
  if (action === "rerun") return [`Up to ${numberOf(live, "running attempt")} will be stopped, uncharged.`];
  if (action === "edit") return [`Up to ${attempts} may be running and will finish unchanged; an attempt that has not started is recalled.`];
  return action === "priority" ? [`Up to ${attempts} may be running and will continue.`] : [];
}

/** A priority that was typed; null: it is none. */
export function priorityOf(text: string, most: number): number | null {
  const value = /^\s*[+-]?\d{1,4}\s*$/.test(text) ? Number(text) : NaN;
  return Math.abs(value) <= most ? value : null;
}

/** What to change in the requests of tasks; "": nothing. */
export interface Edit {
  memory: string;
  runtime: string;
  cores: string;
  attempts: string;
  isReset: boolean;
}

/** Why an edit cannot be made, or "". */
export function editProblem({ memory, runtime, cores, attempts, isReset }: Edit): string {
  if (isReset) return "";
  if (![memory, runtime, cores, attempts].some((text) => text.trim())) return "Fill in what to change; the rest stays as it is.";
  return attempts.trim() && !/^\s*[1-9]\d{0,8}\s*$/.test(attempts) ? "Attempts: a number of at least 1." : "";
}

/** What an edit changes. */
export function editText({ memory, runtime, cores, attempts, isReset }: Edit): string {
  if (isReset) return "Their command, resources and attempts will be those of the script again.";
  const named = [["memory", memory], ["time", runtime], ["cores", cores], ["attempts at most", attempts]] as const;
  const changes = named.flatMap(([name, text]) => (text.trim() ? [`${name} ${text.trim()}`] : []));
  return `Their next attempts: ${changes.join(", ")}.`;
}

/** What holding or releasing did. */
export function heldText(action: Action, planned: number, answer: HoldResponse): string {
  const others = planned - answer.changed;
  const recalled = answer.recalled ? ` ${numberOf(answer.recalled, "attempt")} recalled.` : "";
  const left = others ? ` ${numberOf(others, "task")} had changed meanwhile.` : "";
  return `${numberOf(answer.changed, "task")} ${DONE[action]}.${recalled}${left}`;
}

/** What setting the status of tasks did. */
export function changedText(action: Action, answer: TaskUpdateResponse): string {
  const stopped = answer.to_kill ? ` ${numberOf(answer.to_kill, "attempt")} being stopped; their tasks follow.` : "";
  return `${numberOf(answer.changed, "task")} ${action === "rerun" ? "will be " : ""}${DONE[action]}.${stopped}`;
}

/** A limit on how many tasks run at once. */
export function limitText(limit: number, unlimited: number): string {
  if (limit === 0) return "paused";
  return limit >= unlimited ? "no limit" : `at most ${count(limit)} at once`;
}
