// Requests to the server: single ones, and those that are repeated while their answer is shown.

import { useEffect, useRef, useState } from "preact/hooks";
import { ROOT, keyOf } from "./access";
import { FIRST_PAUSE, type Every, nextPause, pauseAfter, STREAMED_EVERY } from "./pace";
import { type Query, queryText } from "./query";
import { recorded } from "./recorded";
import { follow } from "./stream";
import type { Answers, Problem, Queries } from "./wire";

const REQUEST_MILLISECONDS_MAX = 30_000;
/** Statuses that say: not now. */
const AWAY = [502, 503, 504];
const UNAUTHORIZED = 401;
const NOT_MODIFIED = 304;
const NOT_FOUND = 404;
/** All pages that show a workflow share an answer for a second. */
const ACCEPTED_AGE = "max-age=1";
/** So long after a change no shared answer from before is accepted. */
const FRESH_MILLISECONDS = 2_000;
/** Whether the server ever let us in. */
let hasRead = false;

/** The server answered with an error. */
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

/** The paths that answer with T: any other does not compile. */
export type PathTo<T> = {
  [Path in keyof Answers]: [Answers[Path], T] extends [T, Answers[Path]] ? Path : never;
}[keyof Answers];

/** What may be asked of the paths that answer with T: another field, or one of another type, does not compile. */
export type QueryTo<T> = Queries[PathTo<T>];

/** Read a route once. */
export async function read<T>(
  path: PathTo<T>,
  query: QueryTo<T>,
  signal: AbortSignal = new AbortController().signal,
): Promise<T> {
  return (await fetched<T>(path + queryText(query as Query), signal, "")).value!;
}

/** Send a message once, and return the answer. */
export async function send<T>(method: "POST" | "PUT", path: string, message: object): Promise<T> {
  const init = { method, body: JSON.stringify(message), headers: { "Content-Type": "application/json" } };
  return (await answered(path, init, new AbortController().signal)).body as T;
}

/** Until then nothing older is accepted (`performance.now()`). */
let freshUntil = 0;

/** Read everything again that is shown, now: something was changed. */
export function readAgain(): void {
  freshUntil = performance.now() + FRESH_MILLISECONDS;
  for (const wake of [...wakers]) wake();
}

async function fetched<T>(path: string, signal: AbortSignal, tag: string, message?: object): Promise<Fetched<T>> {
  if (recorded) return { value: fromReport(path) as T, tag: "" };
  const { response, body } = await answered(
    path,
    {
      ...(message && { method: "POST", body: JSON.stringify(message) }),
      headers: {
        ...(message && { "Content-Type": "application/json" }),
        ...(tag && { "If-None-Match": tag }),
        ...(performance.now() >= freshUntil && { "Cache-Control": ACCEPTED_AGE }),
      },
    },
    signal,
  );
  if (response.status === NOT_MODIFIED) return { value: undefined, tag };
  return { value: body as T, tag: response.headers.get("ETag") ?? "" };
}

function fromReport(path: string): unknown {
  const answer = recorded!.answers[path.split("?", 1)[0]!];
  if (answer === undefined) throw new Refused(NOT_FOUND, "This report does not contain that.");
  return answer;
}

interface Answered {
  response: Response;
  body: unknown;
}

async function answered(path: string, init: RequestInit, signal: AbortSignal): Promise<Answered> {
  const key = keyOf();
  const ending = new AbortController();
  const end = () => ending.abort();
  const limit = setTimeout(end, REQUEST_MILLISECONDS_MAX);
  signal.addEventListener("abort", end);
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(ROOT + path, {
      ...init,
      headers: { ...init.headers, ...(key && { Authorization: `Bearer ${key}` }) },
      signal: ending.signal,
      cache: "no-store",
    });
    if (response.status === NOT_MODIFIED) return { response, body: undefined };
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
  return { response, body };
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

/** `waking` is told how to end this pause alone. */
function pause(milliseconds: number, signal: AbortSignal, waking: { current: () => void }): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      wakers.delete(end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    wakers.add(end);
    waking.current = end;
    signal.addEventListener("abort", end);
  });
}

// --- what goes on being read -----------------------------------------------------------------------------------------

/** Whether an answer shows an earlier moment than another one: readers share answers for half a second. */
function isOlder(value: unknown, than: unknown): boolean {
  const [mine, other] = [value, than].map((one) => (one as { snapshot?: number } | undefined)?.snapshot);
  return mine !== undefined && other !== undefined && mine < other;
}

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
 * `path` null: not now. `every`: milliseconds until the next time, from the answer; null: that was all. `message`: for
 * routes that read by POST; always the same for a path.
 */
export function useLive<T>(path: PathTo<T> | null, query: QueryTo<T>, every: Every<T>, message?: object): Live<T> {
  const question = path === null ? null : path + queryText(query as Query);
  const newestEvery = useRef(every);
  newestEvery.current = every;
  const wakeOne = useRef(() => {});
  const [found, setFound] = useState<{ question: string; value?: T; refused?: Refused } | null>(null);
  useEffect(() => {
    if (question === null) return undefined;
    const ending = new AbortController();
    const { signal } = ending;
    let last: Fetched<T> | null = null;
    /** Whether a stream brings the answers. */
    let isStreamed = false;
    const leave = follow(question, {
      take: (value) => {
        isStreamed = true;
        if (isOlder(value, last?.value)) return;
        last = { value: value as T, tag: "" };
        setAway(null);
        hasRead = true;
        setFound({ question, value: value as T });
      },
      resumed: () => {
        isStreamed = true;
      },
      lost: () => {
        if (!isStreamed) return;
        isStreamed = false;
        wakeOne.current();
      },
    });
    async function read(asked: string): Promise<void> {
      let failed = FIRST_PAUSE;
      while (!signal.aborted) {
        const began = performance.now();
        let wait: number | null;
        try {
          const known = last;
          const answer: Fetched<T> = await fetched<T>(asked, signal, known?.tag ?? "", message);
          if (signal.aborted) return;
          const value: T = answer.value ?? known!.value!;
          setAway(null);
          hasRead = true;
          failed = FIRST_PAUSE;
          if (last === known) {
            // otherwise the stream was faster
            if (answer.value !== undefined || known === null) setFound({ question: asked, value });
            last = { value, tag: answer.tag };
          }
          const every = recorded ? null : newestEvery.current(value);
          wait = pauseAfter(every, performance.now() - began, document.hidden);
          if (wait !== null && isStreamed) wait = Math.max(wait, STREAMED_EVERY);
        } catch (error) {
          if (signal.aborted) return;
          if (error instanceof Refused) {
            setAway(null);
            if (error.status === UNAUTHORIZED && hasRead) {
              shutOut();
              return;
            }
            setFound({ question: asked, refused: error });
            if (error.status < 500) {
              leave?.();
              return;
            }
          } else if (error instanceof Away) {
            setAway(awaySince ?? new Date());
          } else {
            throw error;
          }
          wait = failed = nextPause(failed);
        }
        if (wait === null) return;
        await pause(wait, signal, wakeOne);
      }
    }
    void read(question);
    return () => {
      leave?.();
      ending.abort();
    };
  }, [question]);
  return {
    value: found?.value,
    isStale: found !== null && found.question !== question,
    refused: found?.question === question ? found?.refused : undefined,
  };
}
