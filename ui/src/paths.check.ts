// Checked by the compiler, and in no bundle: paths that do not exist, or answer with something else, do not compile.

import type { PathTo } from "./api";
import type { TaskDetail, WorkflowView, WorkflowsResponse } from "./wire";

export const right: [PathTo<WorkflowView>, PathTo<TaskDetail>, PathTo<WorkflowsResponse>] = [
  "/workflows/1/view",
  "/tasks/1",
  "/workflows",
];
// @ts-expect-error it answers with a ProgressResponse
export const other: PathTo<WorkflowView> = "/workflows/1/progress";
// @ts-expect-error there is no such path
export const unknown: PathTo<WorkflowView> = "/workflow/1/view";
// @ts-expect-error an ID is a number
export const wrongId: PathTo<TaskDetail> = "/tasks/first";
