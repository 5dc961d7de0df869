// How often the server is asked. Times are milliseconds.

/** How long until the next question, from an answer; null: no more; 0: at once, because the answer is a part. */
export type Every<T> = (value: T) => number | null;

export const ACTIVE_EVERY = 1_000;
/** What ended may begin anew: somebody resumes it. */
export const RESTING_EVERY = 15_000;
/** What costs the server more is asked for less often; no figure is older than two seconds. */
export const COSTLY_EVERY = 1_500;
/** What a stream sends is asked for only in case the stream is wrong. */
export const STREAMED_EVERY = 60_000;
/** A stream on which nothing arrives for so long, not even a comment, is cut or held back by a proxy. */
export const STREAM_SILENT_MAX = 8_000;
/** The pause before a stream is opened anew: doubled each time, until it works. */
export const STREAM_PAUSE = 500;
export const STREAM_PAUSE_MAX = 60_000;
/** A page that nobody looks at only keeps its server: one of one's own ends after 15 minutes without a request. */
export const HIDDEN_EVERY = 5 * 60_000;
/** The server is busy with one question of this page for at most this share of the time. */
export const SHARE_MAX = 0.05;
/** But so long a pause is enough: answers also take long over a slow line. */
export const SLOWEST_EVERY = 10_000;
export const FIRST_PAUSE = 250;
export const PAUSE_MAX = 5_000;

/** The pause after an answer that took so long. */
export function pauseAfter(every: number | null, took: number, isHidden: boolean): number | null {
  if (every === null) return null;
  if (every === 0 && !isHidden) return 0;
  return Math.max(every, Math.min(took / SHARE_MAX, SLOWEST_EVERY), isHidden ? HIDDEN_EVERY : 0);
}

/** The pause after one more try in vain. */
export function nextPause(last: number): number {
  return Math.min(last * 2, PAUSE_MAX);
}
