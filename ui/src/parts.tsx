// What all views are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Live } from "./api";
import { WithCommands } from "./command";
import { address } from "./query";
import { hasTask, recorded } from "./recorded";
import { ATTEMPT_STATUS, TASK_GROUP, TASK_STATUS } from "./wire";
import { Login } from "./login";
import { count, type Groups, groupsText, localTime, plain, share, utcTime } from "./words";

const NO_ACCESS =
  "This page has no key to this server, or one that was already used or has expired. Open it with the command jobmon ui.";
const TYPING_MILLISECONDS = 300;

/** The head of a view: the document's title, and where the keyboard goes after a link was followed. */
export function Title({ text, children }: { text: string; children?: ComponentChildren }) {
  const head = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${text} · Jobmon`;
  }, [text]);
  useEffect(() => head.current?.focus({ preventScroll: true }), []);
  return (
    <h1 ref={head} tabIndex={-1}>
      {plain(text)} {children}
    </h1>
  );
}

/** A section under a heading of its own. */
export function Part({ title, note, children }: { title: string; note?: string; children: ComponentChildren }) {
  return (
    <section aria-label={title}>
      <h2>
        {title} {note && <small>{note}</small>}
      </h2>
      {children}
    </section>
  );
}

/** A section that reads its data only while it is open. */
export function Section({ title, children }: { title: string; children: ComponentChildren }) {
  const [isOpen, setOpen] = useState(recorded !== null);
  return (
    <section aria-label={title}>
      <details open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>
          <h2>{title}</h2>
        </summary>
        {isOpen && children}
      </details>
    </section>
  );
}

/** A link to a task, where there is a view of it. */
export function TaskLink({ id, name }: { id: number; name: string }) {
  return hasTask(id) ? <a href={address(`/tasks/${id}`)}>{plain(name)}</a> : <>{plain(name)}</>;
}

/** What is read, or why it is not there. */
export function Shown<T>({ live, children }: { live: Live<T>; children: (value: T) => ComponentChildren }) {
  if (live.refused) {
    return (
      <p class="problem" role="alert">
        {live.refused.status === 401 ? <Login otherwise={NO_ACCESS} /> : plain(live.refused.message)}
      </p>
    );
  }
  if (live.value === undefined) return <p class="quiet">Reading …</p>;
  return <div class={live.isStale ? "stale" : undefined}>{children(live.value)}</div>;
}

/** That an answer is about some of the attempts only, for a moment. */
export function SoFar({ share }: { share: number }) {
  if (share >= 1) return null;
  return <p class="quiet">Reading … {Math.floor(100 * share)} % of the attempts so far.</p>;
}

export function Time({ at }: { at: string | null | undefined }) {
  if (!at) return <>–</>;
  const moment = new Date(at);
  return (
    <time dateTime={at} title={utcTime(moment)}>
      {localTime(moment)}
    </time>
  );
}

const tone = (name: string): string => `tone-${name.toLowerCase()}`;

function Badge({ kind, name }: { kind: string; name: string }) {
  return <span class={`badge ${tone(kind)}`}>{name.replaceAll("_", " ")}</span>;
}

export function TaskBadge({ status }: { status: string }) {
  return <Badge kind={TASK_GROUP[status] ?? "PENDING"} name={TASK_STATUS[status] ?? status} />;
}

/** Shown beside the status of a task that is not launched until it is released. */
export function HeldBadge() {
  return <Badge kind="held" name="HELD" />;
}

export function WorkflowBadge({ name }: { name: string }) {
  const kind = { DONE: "DONE", FAILED: "FATAL", RUNNING: "RUNNING" }[name] ?? "PENDING";
  return <Badge kind={kind} name={name} />;
}

export function AttemptBadge({ status }: { status: string }) {
  const name = ATTEMPT_STATUS[status] ?? status;
  const isFailure = /ERROR|NO_/.test(name);
  const kind = { DONE: "DONE", RUNNING: "RUNNING", LAUNCHED: "RUNNING" }[name] ?? (isFailure ? "FATAL" : "PENDING");
  return <Badge kind={kind} name={name} />;
}

/** A bar by what people want to know; says in words what it shows. */
export function Bar({ groups, of }: { groups: Groups; of: number }) {
  const shown = (["DONE", "SKIPPED", "RUNNING", "FATAL"] as const).filter((group) => groups[group]);
  const text = groupsText(groups);
  return (
    <div class="bar" role="img" aria-label={`${text} of ${count(of)}`} title={text}>
      {shown.map((group) => (
        <i key={group} class={tone(group)} style={{ width: `${(100 * groups[group]) / of}%` }} />
      ))}
    </div>
  );
}

/** The share that is done; 100 % only if nothing is missing. */
export const doneShare = (groups: Groups, of: number): string =>
  of ? share(groups.DONE === of ? 1 : Math.min(groups.DONE / of, 0.999)) : "–";

/** A text box whose text is told when typing pauses. */
export function Search(props: { label: string; text: string; offered?: string[]; onText: (text: string) => void }) {
  const { label, text, offered, onText } = props;
  const list = useId();
  const [typed, setTyped] = useState(text);
  useEffect(() => setTyped(text), [text]);
  useEffect(() => {
    if (typed === text) return undefined;
    const timer = setTimeout(() => onText(typed), TYPING_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [typed]);
  return (
    <label>
      {label}
      <input
        type="search"
        value={typed}
        list={offered && list}
        onInput={(event) => setTyped(event.currentTarget.value)}
      />
      {offered && (
        <datalist id={list}>
          {offered.map((one) => (
            <option key={one} value={one} />
          ))}
        </datalist>
      )}
    </label>
  );
}

/** Said instead of rows: a filter that is not understood must not count as no filter. */
export function UnknownStatus({ status, known }: { status: string; known: readonly string[] }) {
  return (
    <p class="problem" role="alert">
      There is no status {plain(status)}. Choose one of: {known.join(", ")}.
    </p>
  );
}

export function Choice(props: {
  label: string;
  value: string;
  choices: [value: string, text: string][];
  onValue: (value: string) => void;
}) {
  return (
    <label>
      {props.label}
      <select value={props.value} onChange={(event) => props.onValue(event.currentTarget.value)}>
        {props.choices.map(([value, text]) => (
          <option key={value} value={value}>
            {plain(text)}
          </option>
        ))}
      </select>
    </label>
  );
}

export interface Column<Row> {
  head: string;
  cell: (row: Row) => ComponentChildren;
  isNumber?: boolean;
}

/**
 * A table; where there is little room each row is a card, and each cell says what it is.
 *
 * The roles are said because browsers forget them where a table is not shown as one.
 */
export function Table<Row>(props: {
  label: string;
  columns: Column<Row>[];
  rows: Row[];
  id: (row: Row) => number | string;
}) {
  return (
    <table role="table" aria-label={props.label}>
      <thead role="rowgroup">
        <tr role="row">
          {props.columns.map(({ head, isNumber }) => (
            <th key={head} role="columnheader" scope="col" class={isNumber ? "number" : undefined}>
              {head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {props.rows.map((row) => (
          <tr key={props.id(row)} role="row">
            {props.columns.map(({ head, cell, isNumber }) => (
              <td key={head} role="cell" data-head={head} class={isNumber ? "number" : undefined}>
                {cell(row)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Names and values. */
export function Pairs({ values }: { values: [name: string, value: ComponentChildren][] }) {
  return (
    <dl>
      {values.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Reasons({ reasons }: { reasons: { kind: string; text: string }[] }) {
  return (
    <ul class="reasons">
      {reasons.map((reason, number) => (
        <li key={number}>
          <WithCommands text={reason.text} />
        </li>
      ))}
    </ul>
  );
}
