// What the server sends of a workflow by itself, while its view is open: server-sent events over `fetch`, because the key
// is a header. Each event is the answer to a question that could be asked as well, so without a stream the page asks.

import { ROOT, keyOf } from "./access";
import { EventParser, type ServerEvent } from "./events";
import { STREAM_PAUSE, STREAM_PAUSE_MAX, STREAM_SILENT_MAX } from "./pace";
import { recorded } from "./recorded";

const SUCCESS = 200;

/** Who takes the answers to a question. */
export interface Follower {
  /** An answer arrived. */
  take: (value: unknown) => void;
  /** The stream is there again, and sends an answer only if it is another one than the last. */
  resumed: () => void;
  /** From now on none may arrive any more. */
  lost: () => void;
}

/** The answers that a stream sends: which event answers which question, per workflow. */
const EVENTS: readonly [event: string, question: RegExp][] = [
  ["view", /^\/workflows\/(\d+)\/view$/],
  ["workflow", /^\/workflows\?workflow_id=(\d+)&counts=false$/],
  ["tasks", /^\/workflows\/(\d+)\/task_summaries\?order=importance&limit=50&total=true$/],
  ["failures", /^\/workflows\/(\d+)\/failures\?limit=10$/],
];

const streams = new Map<string, Stream>();

/** Take the answers to a question from a stream, if it is one that streams answer; returns how to leave it, or null. */
export function follow(question: string, follower: Follower): (() => void) | null {
  if (recorded) return null;
  for (const [event, pattern] of EVENTS) {
    const id = pattern.exec(question)?.[1];
    if (id === undefined) continue;
    const stream = streams.get(id) ?? new Stream(id);
    streams.set(id, stream);
    return stream.follow(event, follower);
  }
  return null;
}

/** A stream about one workflow, shared by all parts of the page; closed while the page is hidden. */
class Stream {
  private readonly followers = new Map<string, Set<Follower>>();
  /** The newest data of each event. */
  private readonly newest = new Map<string, unknown>();
  /** Whether the server sends: then `newest` is what it would send again. */
  private isOpen = false;
  private connection: AbortController | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pause = STREAM_PAUSE;
  private lastId = "";

  constructor(private readonly id: string) {
    document.addEventListener("visibilitychange", this.look);
  }

  follow(event: string, follower: Follower): () => void {
    const others = this.followers.get(event) ?? new Set();
    this.followers.set(event, others.add(follower));
    if (this.isOpen && this.newest.has(event)) follower.take(this.newest.get(event));
    this.look();
    return () => {
      others.delete(follower);
      if ([...this.followers.values()].some((some) => some.size)) return;
      document.removeEventListener("visibilitychange", this.look);
      streams.delete(this.id);
      this.close();
    };
  }

  /** Connect, or close what is open, as the page is shown or hidden. */
  private readonly look = (): void => {
    if (document.hidden) this.close();
    else if (this.connection === null) void this.read();
  };

  private close(): void {
    clearTimeout(this.timer);
    this.connection?.abort();
    this.connection = null;
    this.lose();
  }

  private lose(): void {
    this.isOpen = false;
    for (const some of this.followers.values()) for (const one of some) one.lost();
  }

  /** Read until the stream ends or falls silent; then wait, and connect anew. */
  private async read(): Promise<void> {
    const connection = (this.connection = new AbortController());
    clearTimeout(this.timer);
    let isRefused = false;
    try {
      isRefused = !(await this.receive(connection));
    } catch {
      // The server is away, or a proxy cut or held back the stream: the page asks instead, and says what it learns.
    }
    if (this.connection !== connection) return;
    connection.abort();
    this.lose();
    if (isRefused) return; // it stays so until the page is looked at anew
    this.pause = Math.min(this.pause * 2, STREAM_PAUSE_MAX);
    this.timer = setTimeout(() => {
      this.connection = null;
      this.look();
    }, this.pause);
  }

  /** Take events; returns false if the server refuses the stream. */
  private async receive(connection: AbortController): Promise<boolean> {
    const silence = () => setTimeout(() => connection.abort(), STREAM_SILENT_MAX);
    let silent = silence();
    try {
      const key = keyOf();
      const response = await fetch(`${ROOT}/workflows/${this.id}/stream`, {
        headers: {
          Accept: "text/event-stream",
          ...(key && { Authorization: `Bearer ${key}` }),
          ...(this.lastId && { "Last-Event-ID": this.lastId }),
        },
        signal: connection.signal,
        cache: "no-store",
      });
      if (response.status !== SUCCESS || response.body === null) return response.status >= 500;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return true;
        clearTimeout(silent);
        silent = silence();
        if (!this.isOpen) this.resume();
        for (const event of parser.take(value)) this.dispatch(event);
      }
    } finally {
      clearTimeout(silent);
    }
  }

  private resume(): void {
    this.isOpen = true;
    for (const name of this.newest.keys()) for (const one of this.followers.get(name) ?? []) one.resumed();
  }

  private dispatch({ name, id, data }: ServerEvent): void {
    this.pause = STREAM_PAUSE;
    this.lastId = id;
    const value: unknown = JSON.parse(data);
    this.newest.set(name, value);
    for (const one of this.followers.get(name) ?? []) one.take(value);
  }
}
