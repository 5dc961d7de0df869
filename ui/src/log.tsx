// The output of an attempt: any part of it, followed while it runs, and searched by the server.

import { useEffect, useRef, useState } from "preact/hooks";
import { Refused, read, useLive } from "./api";
import { ACTIVE_EVERY } from "./pace";
import { type Piece, pieces, splitAt } from "./output";
import { Shown } from "./parts";
import { type AttemptDetail, ATTEMPT_ENDS, type LogMatches, type LogPart, type LogTail } from "./wire";
import { bytes, count, plain } from "./words";

const PART_BYTES = 64 * 1024;
/** More text than this makes a browser slow; what is furthest away is dropped. */
const SHOWN_BYTES_MAX = 1024 * 1024;
/** What is shown before a match. */
const BEFORE_BYTES = 4 * 1024;
/** So near to its end an output is scrolled along, pixels. */
const NEAR_PIXELS = 30;

type Stream = "stdout" | "stderr";

interface Range {
  start: number;
  end: number;
  size: number;
  text: string;
  path: string;
}

export function Log({ attempt }: { attempt: AttemptDetail }) {
  const [stream, setStream] = useState<Stream>("stdout");
  const hasTwo = attempt.stderr !== null && attempt.stderr !== attempt.stdout;
  return (
    <>
      <h3>Output</h3>
      {hasTwo && (
        <div class="actions" role="group" aria-label="Stream">
          {(["stdout", "stderr"] as const).map((one) => (
            <button key={one} type="button" aria-pressed={stream === one} onClick={() => setStream(one)}>
              {one}
            </button>
          ))}
        </div>
      )}
      <Viewer key={stream} attempt={attempt} stream={stream} />
    </>
  );
}

function Viewer({ attempt, stream }: { attempt: AttemptDetail; stream: Stream }) {
  const isOver = ATTEMPT_ENDS.includes(attempt.status);
  const route = `/task_instances/${attempt.task_instance_id}/log` as const;
  const [shown, setShown] = useState<Range | null>(null);
  const [problem, setProblem] = useState("");
  const [word, setWord] = useState("");
  const [isFollowing, setFollowing] = useState(true);
  /** A new one each time, so that the same match is scrolled to again. */
  const [sought, setSought] = useState<{ at: number } | null>(null);
  const pre = useRef<HTMLPreElement>(null);
  const ending = useRef(new AbortController());
  /** Counts the ranges asked for: only the newest is shown. */
  const turn = useRef(0);

  /** Read a range; null if there is none, or another one has been asked for meanwhile. */
  async function part(start: number, most: number): Promise<LogPart | null> {
    turn.current += 1;
    const mine = turn.current;
    try {
      const found = await read<LogPart>(route, { stream, start, most }, ending.current.signal);
      if (mine !== turn.current) return null;
      setProblem(found.problem);
      return found.problem ? null : found;
    } catch (error) {
      if (error instanceof Refused && mine === turn.current) setProblem(error.message);
      return null; // the page says by itself that the server is away
    }
  }

  async function show(start: number) {
    const found = await part(start, PART_BYTES);
    if (found) setShown(found);
  }

  async function addBefore() {
    if (!shown) return;
    const start = Math.max(0, shown.start - PART_BYTES);
    const found = await part(start, shown.start - start);
    if (!found) return;
    setFollowing(false);
    const text = found.text + shown.text;
    const isFull = shown.end - found.start > SHOWN_BYTES_MAX;
    setShown(isFull ? found : { ...shown, start: found.start, text });
  }

  async function addAfter() {
    if (!shown) return show(-PART_BYTES);
    const found = await part(shown.end, PART_BYTES);
    if (!found) return undefined;
    if (found.size < shown.end) return show(-PART_BYTES); // the file was written anew
    const isFull = found.end - shown.start > SHOWN_BYTES_MAX;
    if (found.end > shown.end || found.size !== shown.size) {
      setShown(isFull ? found : { ...shown, end: found.end, size: found.size, text: shown.text + found.text });
    }
    return undefined;
  }

  const newestAdd = useRef(addAfter);
  newestAdd.current = addAfter;
  useEffect(() => {
    ending.current = new AbortController();
    void show(-PART_BYTES);
    return () => ending.current.abort();
  }, []);
  useEffect(() => {
    if (!isFollowing) return undefined;
    if (isOver) {
      void show(-PART_BYTES); // what it wrote last
      return undefined;
    }
    let isBusy = false;
    const timer = setInterval(() => {
      if (isBusy || document.hidden) return;
      isBusy = true;
      void newestAdd.current().finally(() => (isBusy = false));
    }, ACTIVE_EVERY);
    return () => clearInterval(timer);
  }, [isFollowing, isOver]);
  useEffect(() => {
    const element = pre.current;
    if (element && isFollowing) element.scrollTop = element.scrollHeight;
  }, [shown, isFollowing]);

  useEffect(() => {
    const element = pre.current;
    if (!element || !sought || !shown) return;
    const before = splitAt(textBefore(shown.text, sought.at - shown.start), word).length - 1;
    const marks = element.querySelectorAll("mark");
    const mark = marks[Math.min(before / 2, marks.length - 1)];
    if (mark) element.scrollTop += mark.getBoundingClientRect().top - element.getBoundingClientRect().top - NEAR_PIXELS;
  }, [sought]);

  if (problem) return <Recorded attempt={attempt} problem={problem} isOver={isOver} />;
  if (!shown) return <p class="quiet">Reading …</p>;
  const jump = (start: number) => {
    setFollowing(false);
    setSought(null);
    void show(start);
  };
  const find = (at: number, text: string) => {
    setFollowing(false);
    setWord(text);
    void show(Math.max(0, at - BEFORE_BYTES)).then(() => setSought({ at }));
  };
  return (
    <>
      <Finder route={route} stream={stream} onFound={find} />
      <div class="actions" role="group" aria-label="Part of the output">
        <button type="button" onClick={() => jump(0)} disabled={shown.start === 0}>
          Beginning
        </button>
        <button type="button" onClick={() => void addBefore()} disabled={shown.start === 0}>
          Earlier
        </button>
        <button type="button" onClick={() => void addAfter()} disabled={shown.end >= shown.size && isOver}>
          Later
        </button>
        <button
          type="button"
          onClick={() => {
            setFollowing(true);
            void show(-PART_BYTES);
          }}
        >
          End
        </button>
        {!isOver && (
          <label class="check">
            <input type="checkbox" checked={isFollowing} onChange={(event) => setFollowing(event.currentTarget.checked)} />
            Follow
          </label>
        )}
        <small>
          bytes {count(shown.start)} to {count(shown.end)} of {count(shown.size)} ({bytes(shown.size)})
        </small>
      </div>
      {shown.size === 0 ? (
        <p class="quiet">{isOver ? "It wrote nothing." : "It has written nothing yet."}</p>
      ) : (
        <pre
          ref={pre}
          class="output"
          tabIndex={0}
          role="region"
          aria-label={`Output of attempt ${attempt.number}`}
          onScroll={(event) => {
            const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
            if (scrollHeight - scrollTop - clientHeight > NEAR_PIXELS) setFollowing(false);
          }}
        >
          {pieces(shown.text).map((piece, number) => (
            <Coloured key={number} piece={piece} word={word} />
          ))}
        </pre>
      )}
      <p class="quiet path">{plain(shown.path)}</p>
    </>
  );
}

function Coloured({ piece, word }: { piece: Piece; word: string }) {
  const parts = splitAt(piece.text, word).map((part, at) => (at % 2 ? <mark key={at}>{part}</mark> : part));
  return piece.style ? <span class={piece.style}>{parts}</span> : <>{parts}</>;
}

/** The text of the first bytes of a text. */
const textBefore = (text: string, bytes: number): string =>
  new TextDecoder().decode(new TextEncoder().encode(text).subarray(0, bytes));

/** What to mark of a line in which an error was found: its longest part of one colour. */
function longest(line: string): string {
  const texts = pieces(line).map((piece) => piece.text.trim());
  return texts.reduce((long, text) => (text.length > long.length ? text : long), "");
}

interface FinderProps {
  route: `/task_instances/${number}/log`;
  stream: Stream;
  /** A match was chosen: where it is, and the text to mark. */
  onFound: (at: number, text: string) => void;
}

function Finder({ route, stream, onFound }: FinderProps) {
  const [typed, setTyped] = useState("");
  const [found, setFound] = useState<LogMatches | null>(null);
  const [isBusy, setBusy] = useState(false);
  const [searched, setSearched] = useState("");

  async function search(word: string, start: number, before: LogMatches["matches"]) {
    setBusy(true);
    setSearched(word);
    try {
      const answer = await read<LogMatches>(`${route}_search`, { stream, word, start });
      setFound({ ...answer, matches: [...before, ...answer.matches] });
      if (!before.length && answer.matches[0]) onFound(answer.matches[0].at, word || longest(answer.matches[0].line));
    } catch (error) {
      setFound({ size: 0, matches: [], next: null, problem: error instanceof Refused ? error.message : "" });
    } finally {
      setBusy(false);
    }
  }

  return (
    <>
      <form
        class="actions"
        role="search"
        aria-label="Search the output"
        onSubmit={(event) => {
          event.preventDefault();
          if (typed) void search(typed, 0, []);
        }}
      >
        <input
          type="search"
          aria-label="Text in the output"
          value={typed}
          maxLength={200}
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
        <button type="submit" disabled={isBusy || !typed}>
          Search
        </button>
        <button type="button" disabled={isBusy} onClick={() => void search("", 0, [])}>
          First error
        </button>
        <small role="status">{isBusy ? "Searching …" : found ? foundText(found) : ""}</small>
      </form>
      {found !== null && found.matches.length > 0 && (
        <ol class="matches" aria-label="Lines found">
          {found.matches.map((match) => (
            <li key={match.at}>
              <button type="button" class="line" onClick={() => onFound(match.at, searched || longest(match.line))}>
                <small>{count(match.at)}</small>{" "}
                {pieces(match.line)
                  .map((piece) => piece.text)
                  .join("")}
              </button>
            </li>
          ))}
        </ol>
      )}
      {found?.next != null && (
        <button type="button" disabled={isBusy} onClick={() => void search(searched, found.next!, found.matches)}>
          Search on
        </button>
      )}
    </>
  );
}

function foundText(found: LogMatches): string {
  if (found.problem) return found.problem;
  const lines = found.matches.length === 1 ? "1 line" : `${count(found.matches.length)} lines`;
  return found.next === null ? `${lines} found` : `${lines} found so far`;
}

/** What the server recorded, where the file cannot be read. */
function Recorded({ attempt, problem, isOver }: { attempt: AttemptDetail; problem: string; isOver: boolean }) {
  const live = useLive<LogTail>(`/task_instances/${attempt.task_instance_id}/log_tail`, {}, (found) =>
    isOver && found.text ? null : ACTIVE_EVERY,
  );
  return (
    <Shown live={live}>
      {(tail) => (
        <>
          {tail.text && (
            <pre class="output" tabIndex={0} role="region" aria-label={`Output of attempt ${attempt.number}`}>
              {pieces(tail.text).map((piece, number) => (
                <Coloured key={number} piece={piece} word="" />
              ))}
            </pre>
          )}
          <p class="quiet path">
            {tail.text ? "Only the end of its output was recorded. " : isOver ? "No output was recorded. " : ""}
            {plain(problem)}
          </p>
        </>
      )}
    </Shown>
  );
}
