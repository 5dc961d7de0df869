// What changes more tasks than fit into a request, or into a transaction of the server: in several, one after the other.

import { send } from "./api";
import { type HoldResponse, type PriorityResponse, TASKS_UPDATED_MAX } from "./wire";

/**
 * Hold or release tasks, as many in each request as the server takes; return the sums.
 *
 * Each request is based on the state after the one before it, so that a change by somebody else in between is noticed:
 * the rest then stays as it is, and the error is that of the request.
 */
export async function holdInChunks(
  path: string,
  message: { task_ids: number[]; held: boolean; user: string; unchanged_since: number },
): Promise<HoldResponse> {
  const sums: HoldResponse = { changed: 0, recalled: 0, unchanged: 0, finished: [], snapshot: message.unchanged_since };
  for (let start = 0; start < message.task_ids.length; start += TASKS_UPDATED_MAX) {
    const task_ids = message.task_ids.slice(start, start + TASKS_UPDATED_MAX);
    const answer = await send<HoldResponse>("POST", path, { ...message, task_ids, unchanged_since: sums.snapshot });
    sums.changed += answer.changed;
    sums.recalled += answer.recalled;
    sums.unchanged += answer.unchanged;
    sums.finished.push(...answer.finished);
    sums.snapshot = answer.snapshot;
  }
  return sums;
}

/** A change of priorities is repeated until all queued attempts are in their new order, at most so often. */
const REPEATS_MAX = 1_000;

/** Set a priority, as often as it takes until queued attempts are in their new order. */
export async function prioritized(path: string, message: { priority: number; [name: string]: unknown }): Promise<PriorityResponse> {
  const first = await send<PriorityResponse>("POST", path, message);
  let answer = first;
  for (let repeat = 0; !answer.is_complete && repeat < REPEATS_MAX; repeat += 1) {
    answer = await send<PriorityResponse>("POST", path, { ...message, unchanged_since: 0, expected: null });
  }
  return { ...answer, changed: first.changed };
}
