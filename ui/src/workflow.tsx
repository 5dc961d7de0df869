// One workflow: progress, reasons, failures, its tasks, and what can be done with them.

import { useEffect, useRef, useState } from "preact/hooks";
import { useLive } from "./api";
import { ACTIVE_EVERY, COSTLY_EVERY, RESTING_EVERY } from "./pace";
import {
  Bar,
  Choice,
  type Column,
  doneShare,
  HeldBadge,
  Part,
  Reasons,
  Search,
  Shown,
  Table,
  TaskBadge,
  TaskLink,
  Time,
  Title,
  UnknownStatus,
  WorkflowBadge,
} from "./parts";
import { maySteer } from "./access";
import { selectionText, SetActions, WorkflowActions } from "./actions";
import { Failures } from "./failures";
import { History } from "./history";
import { Matrix } from "./matrix";
import { queryNow, replacePlace } from "./place";
import { address, type Query } from "./query";
import { recorded } from "./recorded";
import { Resources } from "./resources";
import { Timeline } from "./timeline";
import {
  type ProgressResponse,
  REMOVED,
  TASK_GROUP,
  TASK_GROUPS,
  type TaskSummariesResponse,
  type TaskSummary,
  type TemplateProgress,
  WORKFLOW_ENDS,
  type WorkflowExplanation,
  type WorkflowView,
  type WorkflowsResponse,
  type WorkflowSummary,
} from "./wire";
import { added, count, duration, grouped, numberOf, plain, Rate, rateText, total, wanted } from "./words";

const ROWS_MAX = 50;
const RATE_SECONDS = 60;
const whileActive = (every: number) => (found: { status: string }) =>
  WORKFLOW_ENDS.includes(found.status) ? RESTING_EVERY : every;

export function Workflow({ id, query }: { id: number; query: Record<string, string> }) {
  const found = useLive<WorkflowsResponse>(
    "/workflows",
    { workflow_id: id, counts: false },
    ({ workflows: [one] }) => (one ? whileActive(ACTIVE_EVERY)(one) : null),
  );
  const view = useLive<WorkflowView>(`/workflows/${id}/view`, {}, ({ progress }) =>
    whileActive(ACTIVE_EVERY)(progress),
  );
  const summary = found.value?.workflows[0];
  if (!summary) {
    return (
      <>
        <Title text={`Workflow ${id}`} />
        <Shown live={found}>{() => <p class="problem">There is no workflow {id}.</p>}</Shown>
      </>
    );
  }
  const every = whileActive(COSTLY_EVERY)(summary);
  const hasFigures = Boolean(view.value ?? view.refused); // they come first: the server is not kept busy
  return (
    <>
      <Title text={summary.name || summary.tool_name || `Workflow ${id}`}>
        <WorkflowBadge name={summary.status_name} />
      </Title>
      <About summary={summary} />
      <WorkflowActions
        id={id}
        status={summary.status}
        running={running(view.value)}
        templates={view.value?.progress.templates.map((one) => one.name) ?? []}
      />
      <Shown live={view}>
        {({ progress, explanation }) => (
          <>
            <Progress now={progress} />
            <Why found={explanation} />
          </>
        )}
      </Shown>
      {hasFigures && <Failures id={id} every={every} />}
      <Matrix id={id} every={whileActive(ACTIVE_EVERY)(summary)} />
      <Timeline id={id} every={RESTING_EVERY} />
      <Resources id={id} every={RESTING_EVERY} />
      <History id={id} every={every} />
      <Tasks id={id} query={query} templates={view.value?.progress.templates ?? []} every={every} />
    </>
  );
}

const running = (view: WorkflowView | undefined): number =>
  grouped(added((view?.progress.templates ?? []).map((template) => template.counts))).RUNNING;

function About({ summary }: { summary: WorkflowSummary }) {
  return (
    <p class="about">
      Workflow {summary.workflow_id} · {numberOf(summary.task_count, "task")} · tool {plain(summary.tool_name)} · user{" "}
      {plain(summary.user)} · recorded <Time at={summary.created_at} /> ·{" "}
      {summary.last_workflow_run_id ? summary.status_name.toLowerCase() : "never run"} since <Time at={summary.status_at} />
      <small>{plain(summary.workflow_args)}</small>
    </p>
  );
}

function leftText(now: ProgressResponse): string {
  if (now.left_from === null || now.left_to === null) return "";
  const [from, to] = [duration(now.left_from), duration(now.left_to)];
  return from === to ? to : `${from} to ${to}`;
}

function Progress({ now }: { now: ProgressResponse }) {
  const rate = useRef(new Rate(RATE_SECONDS)).current;
  const counts = added(now.templates.map((template) => template.counts));
  const groups = grouped(counts);
  const of = total(counts);
  const isActive = !WORKFLOW_ENDS.includes(now.status);
  const perSecond = rate.add(performance.now() / 1000, groups.DONE + groups.FATAL);
  const left = isActive ? leftText(now) : "";
  const blocked = now.blocked ? `; ${numberOf(now.blocked, "task")} will never run` : "";
  const removed = now.removed ? `; ${numberOf(now.removed, "task")} removed by later versions` : "";
  return (
    <Part title="Progress">
      <ul class="figures">
        {TASK_GROUPS.map((group) => (
          <li key={group} class={`tone-${group.toLowerCase()}`}>
            <b>{count(groups[group])}</b> {group}
          </li>
        ))}
        <li>
          <b>{doneShare(groups, of)}</b> done{blocked}
          {removed}
        </li>
        {isActive && perSecond !== undefined && perSecond > 0 && (
          <li title={`Tasks that ended within the last ${RATE_SECONDS} s that this page was open`}>
            <b>{rateText(perSecond)}</b> rate
          </li>
        )}
        {left && (
          <li>
            <b>{left}</b> left{now.unknown ? `, and ${numberOf(now.unknown, "task")} of unknown length` : ""}
          </li>
        )}
      </ul>
      <Bar groups={groups} of={of} />
      <Table
        label="Progress by template"
        rows={now.templates}
        id={(row) => row.name}
        columns={[
          { head: "Template", cell: (row) => plain(row.name) },
          { head: "Progress", cell: (row) => <Bar groups={grouped(row.counts)} of={total(row.counts)} /> },
          { head: "Tasks", cell: (row) => count(total(row.counts)), isNumber: true },
          ...TASK_GROUPS.map((group) => ({
            head: group[0] + group.slice(1).toLowerCase(),
            cell: (row: TemplateProgress) => count(grouped(row.counts)[group]),
            isNumber: true,
          })),
          { head: "One takes", cell: (row) => duration(row.seconds), isNumber: true },
        ]}
      />
    </Part>
  );
}

function Why({ found }: { found: WorkflowExplanation }) {
  return (
    <Part title="What it is at">
      {found.reasons.length ? <Reasons reasons={found.reasons} /> : <p class="quiet">There is nothing to say.</p>}
    </Part>
  );
}

const REMOVED_STATUS = "REMOVED";
/** What tasks are filtered by. Removed tasks are shown only if they are asked for. */
const STATUSES: readonly string[] = [...TASK_GROUPS, REMOVED_STATUS];

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

const statusesOf = (name: string): string[] =>
  name === REMOVED_STATUS
    ? [REMOVED]
    : Object.entries(TASK_GROUP).flatMap(([letter, group]) => (group === name ? [letter] : []));

function Tasks(props: { id: number; query: Record<string, string>; templates: TemplateProgress[]; every: number }) {
  const { id, query, templates, every } = props;
  const { status = "", template = "", name = "", after = "" } = query;
  const path = `/workflows/${id}` as const;
  const isKnown = status === "" || STATUSES.includes(status);
  const filter = { status: statusesOf(status), array: template, name: wanted(name) };
  const [selected, setSelected] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => setSelected(new Set()), [status, template, name]);
  const live = useLive<TaskSummariesResponse>(
    isKnown ? `${path}/task_summaries` : null,
    { ...filter, after, limit: ROWS_MAX + 1 },
    () => every,
  );
  const change = (changed: Query) => replacePlace(path, { ...queryNow(), after: null, ...changed });
  const rows = live.value?.tasks.slice(0, recorded ? undefined : ROWS_MAX) ?? [];
  const isFiltered = Boolean(status || template || name);
  const select = (taskId: number) => {
    const now = new Set(selected);
    if (!now.delete(taskId)) now.add(taskId);
    setSelected(now);
  };
  const set = selected.size ? { task_ids: [...selected] } : filter;
  const note = recorded && live.value ? `${count(rows.length)} of ${count(live.value.total ?? rows.length)}, failed ones first` : "";
  return (
    <Part title="Tasks" note={note}>
      {!recorded && (
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
                  { head: "Template", cell: (row) => plain(row.array_name) },
                  { head: "Attempts", cell: (row) => `${row.num_attempts} of ${row.max_attempts}`, isNumber: true },
                  { head: "Since", cell: (row) => <Time at={row.status_at} /> },
                ]}
              />
              <nav class="pages" aria-label="Pages of tasks">
                {after && <a href={address(path, { ...query, after: null })}>First tasks</a>}
                {!recorded && found.tasks.length > ROWS_MAX && (
                  <a href={address(path, { ...query, after: rows.at(-1)?.task_id })}>More tasks</a>
                )}
              </nav>
            </>
          ) : (
            <p class="quiet">{status || template || name || after ? "No task is like that." : "It has no tasks yet."}</p>
          )
        }
      </Shown>}
    </Part>
  );
}

