// Reading from the server: one request, and what goes on being read while it is shown.

import { useEffect, useRef, useState } from "preact/hooks";
import { ROOT, keyOf } from "./access";
import { FIRST_PAUSE, type Every, nextPause, pauseAfter } from "./pace";
import { type Query, queryText } from "./query";
import type { Problem } from "./wire";

const REQUEST_MILLISECONDS_MAX = 30_000;
/** Statuses that say: not now. */
const AWAY = [502, 503, 504];
const UNAUTHORIZED = 401;
const NOT_MODIFIED = 304;
/** All pages that show a workflow share an answer for a second. */
const ACCEPTED_AGE = "max-age=1";
/** Whether the server ever let us in. */
let hasRead = false;

/** The server answered, and said no. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** There was no answer. */
class Away extends Error {}

/** An answer, and by which tag the server knows it; `value` undefined: it is still the one with the tag that was sent. */
interface Fetched<T> {
  value: T | undefined;
  tag: string;
}

/** Read a route once. */
export async function read<T>(path: string, signal: AbortSignal): Promise<T> {
  return (await fetched<T>(path, signal, "")).value!;
}

async function fetched<T>(path: string, signal: AbortSignal, tag: string): Promise<Fetched<T>> {
  const key = keyOf();
  const ending = new AbortController();
  const end = () => ending.abort();
  const limit = setTimeout(end, REQUEST_MILLISECONDS_MAX);
  signal.addEventListener("abort", end);
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(ROOT + path, {
      headers: {
        ...(key && { Authorization: `Bearer ${key}` }),
        ...(tag && { "If-None-Match": tag }),
        "Cache-Control": ACCEPTED_AGE,
      },
      signal: ending.signal,
      cache: "no-store",
    });
    if (response.status === NOT_MODIFIED) return { value: undefined, tag };
    body = await response.json();
  } catch {
    throw new Away();
  } finally {
    clearTimeout(limit);
    signal.removeEventListener("abort", end);
  }
  if (AWAY.includes(response.status)) throw new Away();
  if (!response.ok) {
    const problem = body as Partial<Problem>;
    throw new Refused(response.status, problem.message ?? `The server answered ${response.status}.`);
  }
  return { value: body as T, tag: response.headers.get("ETag") ?? "" };
}

// --- whether the server is there -------------------------------------------------------------------------------------

let awaySince: Date | null = null;
const watchers = new Set<() => void>();
/** Ends all pauses: the page is looked at again, or the server is back. */
const wakers = new Set<() => void>();

function setAway(since: Date | null): void {
  if ((awaySince === null) === (since === null)) return;
  awaySince = since;
  for (const watcher of watchers) watcher();
  if (since === null) for (const wake of [...wakers]) wake();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const wake of [...wakers]) wake();
});
window.addEventListener("online", () => {
  for (const wake of [...wakers]) wake();
});

/** Since when the server has been away; null: it is there. */
export function useAwaySince(): Date | null {
  const [since, setSince] = useState(awaySince);
  useEffect(() => {
    const watcher = () => setSince(awaySince);
    watchers.add(watcher);
    watcher();
    return () => void watchers.delete(watcher);
  }, []);
  return since;
}

// --- whether the server still lets us in -------------------------------------------------------------------------------

let isShutOut = false;

/** Whether the session has ended, so that what is shown stays as it is. */
export function useIsShutOut(): boolean {
  const [shut, setShut] = useState(isShutOut);
  useEffect(() => {
    const watcher = () => setShut(isShutOut);
    watchers.add(watcher);
    watcher();
    return () => void watchers.delete(watcher);
  }, []);
  return shut;
}

function shutOut(): void {
  isShutOut = true;
  for (const watcher of watchers) watcher();
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      wakers.delete(end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    wakers.add(end);
    signal.addEventListener("abort", end);
  });
}

// --- what goes on being read -----------------------------------------------------------------------------------------

export interface Live<T> {
  /** The newest answer; while another question is asked, still that to the last one. */
  value: T | undefined;
  /** Whether `value` answers an earlier question. */
  isStale: boolean;
  refused: Refused | undefined;
}

/**
 * Read a route again and again while the component is shown.
 *
 * `path` null: not now. `every`: milliseconds until the next time, from the answer; null: that was all.
 */
export function useLive<T>(path: string | null, query: Query, every: Every<T>): Live<T> {
  const question = path === null ? null : path + queryText(query);
  const newestEvery = useRef(every);
  newestEvery.current = every;
  const [found, setFound] = useState<{ question: string; value?: T; refused?: Refused } | null>(null);
  useEffect(() => {
    if (question === null) return undefined;
    const ending = new AbortController();
    const { signal } = ending;
    async function read(asked: string): Promise<void> {
      let failed = FIRST_PAUSE;
      let last: Fetched<T> | null = null;
      while (!signal.aborted) {
        const began = performance.now();
        let wait: number | null;
        try {
          const answer: Fetched<T> = await fetched<T>(asked, signal, last?.tag ?? "");
          if (signal.aborted) return;
          const value: T = answer.value ?? last!.value!;
          setAway(null);
          hasRead = true;
          failed = FIRST_PAUSE;
          if (answer.value !== undefined || last === null) setFound({ question: asked, value });
          last = { value, tag: answer.tag };
          wait = pauseAfter(newestEvery.current(value), performance.now() - began, document.hidden);
        } catch (error) {
          if (signal.aborted) return;
          if (error instanceof Refused) {
            setAway(null);
            if (error.status === UNAUTHORIZED && hasRead) {
              shutOut();
              return;
            }
            setFound({ question: asked, refused: error });
            if (error.status < 500) return;
          } else if (error instanceof Away) {
            setAway(awaySince ?? new Date());
          } else {
            throw error;
          }
          wait = failed = nextPause(failed);
        }
        if (wait === null) return;
        await pause(wait, signal);
      }
    }
    void read(question);
    return () => ending.abort();
  }, [question]);
  return {
    value: found?.value,
    isStale: found !== null && found.question !== question,
    refused: found?.question === question ? found?.refused : undefined,
  };
}
