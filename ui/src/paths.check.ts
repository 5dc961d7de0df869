// Checked by the compiler, and in no bundle: paths and queries that do not exist, or have another type, do not compile.

import type { PathTo, QueryTo } from "./api";
import type { TaskDetail, Timeline, WorkflowView, WorkflowsResponse } from "./wire";

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
export const rightQuery: QueryTo<Timeline> = { by: "host", width: 120 };
// @ts-expect-error there is no such field
export const unknownField: QueryTo<Timeline> = { until: 3 };
// @ts-expect-error it is a number
export const wrongType: QueryTo<Timeline> = { width: "120" };
// @ts-expect-error it has no query
export const noQuery: QueryTo<WorkflowView> = { limit: 3 };
