// The tasks of a workflow, the most important ones first: failed, held, running, waiting, done.

import { useEffect, useState } from "preact/hooks";
import { maySteer } from "./access";
import { useLive } from "./api";
import { matches, REMOVED_STATUS, STATUSES, statusesOf } from "./filter";
import {
  Choice,
  type Column,
  HeldBadge,
  Part,
  Search,
  Shown,
  Table,
  TaskBadge,
  TaskLink,
  Time,
  UnknownStatus,
} from "./parts";
import { queryNow, replacePlace } from "./place";
import { address, type Query, numberIn } from "./query";
import { recorded } from "./recorded";
import { selectionText, SetActions } from "./set_actions";
import type { TaskSummariesResponse, TaskSummary, TemplateProgress } from "./wire";
import { count, numberOf, plain, wanted } from "./words";

const ROWS_MAX = 50;

/** A column of boxes that select tasks. */
function selection(selected: ReadonlySet<number>, select: (id: number) => void): Column<TaskSummary> {
  return {
    head: "Select",
    cell: (row) => (
      <input
        type="checkbox"
        aria-label={`Select ${plain(row.name)}`}
        checked={selected.has(row.task_id)}
        onChange={() => select(row.task_id)}
      />
    ),
  };
}

export function Tasks(props: { id: number; query: Record<string, string>; templates: TemplateProgress[]; every: number }) {
  const { id, query, templates, every } = props;
  const { status = "", template = "", name = "", host = "", after = "", rank = "" } = query;
  const path = `/workflows/${id}` as const;
  const isKnown = status === "" || STATUSES.includes(status);
  const filter = { status: statusesOf(status), array: template, name: wanted(name), host };
  const [selected, setSelected] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => setSelected(new Set()), [status, template, name, host]);
  useEffect(() => {
    // a link among the failures led here
    if (host) document.querySelector('section[aria-label="Tasks"]')?.scrollIntoView();
  }, [host]);
  const live = useLive<TaskSummariesResponse>(
    isKnown ? `${path}/task_summaries` : null,
    { ...filter, order: "importance", rank: numberIn(rank), after: numberIn(after), limit: ROWS_MAX, total: true },
    () => every,
  );
  const change = (changed: Query) => replacePlace(path, { ...queryNow(), after: null, rank: null, ...changed });
  const listed = live.value?.tasks ?? [];
  const rows = recorded ? listed.filter((task) => matches(task, { status, template, name })) : listed;
  const isFiltered = Boolean(status || template || name || host);
  const select = (taskId: number) => {
    const now = new Set(selected);
    if (!now.delete(taskId)) now.add(taskId);
    setSelected(now);
  };
  const set = selected.size ? { task_ids: [...selected] } : filter;
  const of = live.value?.total ?? rows.length;
  const isLast = recorded !== null || rows.length < ROWS_MAX || (!after && rows.length === of);
  const note = live.value && isKnown ? noteOf(rows.length, of, isFiltered) : "";
  return (
    <Part title="Tasks" note={note}>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Search label="Task name" text={name} onText={(text) => change({ name: text })} />
        <Choice
          label="Task status"
          value={status}
          choices={[["", "any"], ...STATUSES.map((one): [string, string] => [one, one.toLowerCase()])]}
          onValue={(value) => change({ status: value })}
        />
        <Choice
          label="Template"
          value={template}
          choices={[["", "any"], ...templates.map((one): [string, string] => [one.name, one.name])]}
          onValue={(value) => change({ template: value })}
        />
      </form>
      {host && (
        <p>
          Only tasks whose newest attempt was on {plain(host)}.{" "}
          <a href={address(path, { ...query, host: null, after: null, rank: null })}>On any host</a>
        </p>
      )}
      {!isKnown && <UnknownStatus status={status} known={STATUSES} />}
      {/* also without rows: an action may have left none, and its dialog must stay */}
      {isKnown && status !== REMOVED_STATUS && (
        <SetActions workflowId={id} set={set} of={selectionText(selected.size, isFiltered)} />
      )}
      {isKnown && <Shown live={live}>
        {(found) =>
          rows.length ? (
            <>
              <Table
                label="Tasks"
                rows={rows}
                id={(row) => row.task_id}
                columns={[
                  ...(maySteer() && status !== REMOVED_STATUS ? [selection(selected, select)] : []),
                  { head: "ID", cell: (row) => row.task_id, isNumber: true },
                  { head: "Task", cell: (row) => <TaskLink id={row.task_id} name={row.name} /> },
                  {
                    head: "Status",
                    cell: (row) => (
                      <>
                        <TaskBadge status={row.status} /> {row.held && <HeldBadge />}
                      </>
                    ),
                  },
                  ...(rows.some((row) => row.priority)
                    ? [{ head: "Priority", cell: (row: TaskSummary) => row.priority, isNumber: true }]
                    : []),
                  { head: "Template", cell: (row) => plain(row.array_name) },
                  { head: "Attempts", cell: (row) => `${row.num_attempts} of ${row.max_attempts}`, isNumber: true },
                  { head: "Since", cell: (row) => <Time at={row.status_at} /> },
                ]}
              />
              <nav class="pages" aria-label="Pages of tasks">
                {after && <a href={address(path, { ...query, after: null, rank: null })}>First tasks</a>}
                {!isLast && (
                  <a href={address(path, { ...query, after: rows.at(-1)?.task_id, rank: found.rank })}>More tasks</a>
                )}
              </nav>
            </>
          ) : (
            <p class="quiet">{isFiltered || after ? "No task is like that." : "It has no tasks yet."}</p>
          )
        }
      </Shown>}
    </Part>
  );
}

/** How many of the tasks that match are shown. */
function noteOf(shown: number, of: number, isFiltered: boolean): string {
  if (shown === of) return isFiltered ? numberOf(of, "hit") : count(of);
  return `${count(shown)} of ${numberOf(of, isFiltered && !recorded ? "hit" : "task")}, failed ones first`;
}
