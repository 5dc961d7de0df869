// The filter of tasks: by status, template and name. Pure.

import { REMOVED, TASK_GROUP, TASK_GROUPS, type TaskSummary } from "./wire";

export const REMOVED_STATUS = "REMOVED";
/** What tasks are filtered by. Removed tasks are shown only if they are asked for. */
export const STATUSES: readonly string[] = [...TASK_GROUPS, REMOVED_STATUS];

/** The letters that a status of the filter stands for. */
export const statusesOf = (name: string): string[] =>
  name === REMOVED_STATUS
    ? [REMOVED]
    : Object.entries(TASK_GROUP).flatMap(([letter, group]) => (group === name ? [letter] : []));

export interface Filter {
  status: string;
  template: string;
  name: string;
}

/** Whether a task matches, as on a server: names contain the text, or match it if it has a `*`. */
export function matches(task: TaskSummary, { status, template, name }: Filter): boolean {
  return (
    (status === "" || statusesOf(status).includes(task.status)) &&
    (template === "" || task.array_name === template) &&
    (name === "" || pattern(name).test(task.name))
  );
}

function pattern(name: string): RegExp {
  const words = name.split("*").map((word) => word.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(name.includes("*") ? `^${words.join(".*")}$` : words[0]!, "is");
}
