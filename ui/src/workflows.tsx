// The newest workflows.

import { useRef } from "preact/hooks";
import { useLive } from "./api";
import { userOf } from "./access";
import { ACTIVE_EVERY, COSTLY_EVERY, RESTING_EVERY } from "./pace";
import { Bar, Choice, type Column, doneShare, Search, Shown, Table, Time, Title, UnknownStatus, WorkflowBadge } from "./parts";
import { queryNow, replacePlace } from "./place";
import { address, type Query, numberIn } from "./query";
import { WORKFLOW_ENDS, WORKFLOW_OUTCOMES, WORKFLOW_STATUS, type WorkflowsResponse, type WorkflowSummary } from "./wire";
import { count, grouped, plain, wanted } from "./words";

const ROWS_MAX = 25;
const EVERYBODY = "*";
const ACTIVE = "ACTIVE";
const NAMES = [...Object.values(WORKFLOW_STATUS), ...WORKFLOW_OUTCOMES];
const isActive = (one: WorkflowSummary): boolean => !WORKFLOW_ENDS.includes(one.status);

function statusesOf(word: string): string[] {
  const known = Object.entries(WORKFLOW_STATUS);
  if (WORKFLOW_OUTCOMES.includes(word)) return [word];
  const found = known.filter(([letter, name]) => name === word || (word === ACTIVE && !WORKFLOW_ENDS.includes(letter)));
  return found.map(([letter]) => letter);
}

export function Workflows({ query }: { query: Record<string, string> }) {
  const { status = "", name = "", before = "" } = query;
  const user = query["user"] ?? (userOf() || EVERYBODY);
  const change = (changed: Query) => replacePlace("/", { ...queryNow(), before: null, ...changed });
  const isKnown = status === "" || statusesOf(status).length > 0;
  const list = useLive<WorkflowsResponse>(
    isKnown ? "/workflows" : null,
    {
      user: user === EVERYBODY ? null : [user],
      status: statusesOf(status),
      name: wanted(name),
      before: numberIn(before),
      counts: false,
      limit: ROWS_MAX + 1,
    },
    (found) => (found.workflows.some(isActive) ? COSTLY_EVERY : RESTING_EVERY),
  );
  const rows = list.value?.workflows.slice(0, ROWS_MAX) ?? [];
  const counts = useCounts(rows);
  const newest = rows.map((row) => newer(counts.get(row.workflow_id), row));
  const users = [...new Set([userOf(), ...rows.map((row) => row.user)])].filter(Boolean);
  return (
    <>
      <Title text="Workflows" />
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Search label="Name" text={name} onText={(text) => change({ name: text })} />
        <Search
          label="User (empty: everybody)"
          text={user === EVERYBODY ? "" : user}
          offered={users}
          onText={(text) => change({ user: text || EVERYBODY })}
        />
        <Choice
          label="Status"
          value={status}
          choices={[["", "any"], [ACTIVE, "under way"], ...NAMES.map(named)]}
          onValue={(value) => change({ status: value })}
        />
      </form>
      {!isKnown && <UnknownStatus status={status} known={[ACTIVE, ...NAMES]} />}
      {isKnown && <Shown live={list}>
        {(found) =>
          rows.length ? (
            <>
              <Table label="Workflows" columns={columns(counts)} rows={newest} id={(row) => row.workflow_id} />
              <nav class="pages" aria-label="Pages">
                {before && <a href={address("/", { ...query, before: null })}>Newest</a>}
                {found.workflows.length > ROWS_MAX && (
                  <a href={address("/", { ...query, before: rows.at(-1)?.workflow_id })}>Older workflows</a>
                )}
              </nav>
            </>
          ) : (
            <p class="quiet">{nothing(user, status, name, before)}</p>
          )
        }
      </Shown>}
    </>
  );
}

const newer = (one: WorkflowSummary | undefined, other: WorkflowSummary): WorkflowSummary =>
  one && Date.parse(one.status_at) >= Date.parse(other.status_at) ? one : other;

const named = (name: string): [string, string] => [name, name.toLowerCase()];

function nothing(user: string, status: string, name: string, before: string): string {
  if (status || name || before) return "No workflow is like that.";
  if (user !== EVERYBODY) return `No workflows of ${user} are recorded here. Leave the user empty to see those of everybody.`;
  return "No workflows are recorded here yet. The first one appears as soon as a script binds it.";
}

/**
 * Counting the tasks of many large workflows takes a while, so they are asked for after the list, and again only where
 * they may have changed.
 */
function useCounts(rows: WorkflowSummary[]): Map<number, WorkflowSummary> {
  const known = useRef(new Map<number, WorkflowSummary>()).current;
  const open = rows.filter((row) => isActive(row) || known.get(row.workflow_id)?.status_at !== row.status_at);
  const asked = open.map((row) => row.workflow_id);
  const live = useLive<WorkflowsResponse>(
    asked.length ? "/workflows" : null,
    { workflow_id: asked, limit: ROWS_MAX },
    (found) => (found.workflows.some(isActive) ? ACTIVE_EVERY : null),
  );
  for (const found of live.value?.workflows ?? []) known.set(found.workflow_id, found);
  return known;
}

function columns(counts: Map<number, WorkflowSummary>): Column<WorkflowSummary>[] {
  const groupsOf = (row: WorkflowSummary) => grouped(counts.get(row.workflow_id)?.counts ?? {});
  const number = (row: WorkflowSummary, group: "PENDING" | "RUNNING" | "DONE" | "FATAL") =>
    counts.has(row.workflow_id) ? count(groupsOf(row)[group]) : "…";
  return [
    { head: "ID", cell: (row) => row.workflow_id, isNumber: true },
    {
      head: "Name",
      cell: (row) => (
        <>
          <a href={address(`/workflows/${row.workflow_id}`)}>{plain(row.name || row.tool_name || "no name")}</a>
          <small>
            {plain(row.tool_name)} · {plain(row.user)}
          </small>
        </>
      ),
    },
    { head: "Status", cell: (row) => <WorkflowBadge name={row.status_name} /> },
    {
      head: "Progress",
      cell: (row) => (
        <>
          <Bar groups={groupsOf(row)} of={row.task_count} />
          <small>{counts.has(row.workflow_id) ? doneShare(groupsOf(row), row.task_count) : "…"}</small>
        </>
      ),
    },
    { head: "Tasks", cell: (row) => count(row.task_count), isNumber: true },
    { head: "Pending", cell: (row) => number(row, "PENDING"), isNumber: true },
    { head: "Running", cell: (row) => number(row, "RUNNING"), isNumber: true },
    { head: "Done", cell: (row) => number(row, "DONE"), isNumber: true },
    { head: "Fatal", cell: (row) => number(row, "FATAL"), isNumber: true },
    { head: "Since", cell: (row) => <Time at={row.status_at} /> },
  ];
}
