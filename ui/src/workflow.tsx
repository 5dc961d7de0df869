// One workflow: progress, reasons, failures, its tasks, and what can be done with them.

import { useRef } from "preact/hooks";
import { useLive } from "./api";
import { ACTIVE_EVERY, COSTLY_EVERY, RESTING_EVERY } from "./pace";
import { Bar, doneShare, Part, Reasons, Shown, Table, Time, Title, WorkflowBadge } from "./parts";
import { WorkflowActions } from "./actions";
import { Failures } from "./failures";
import { Graph } from "./graph";
import { History } from "./history";
import { Matrix } from "./matrix";
import { Resources } from "./resources";
import { Tasks } from "./tasks";
import { Timeline } from "./timeline";
import { Versions } from "./versions";
import {
  type ProgressResponse,
  TASK_GROUPS,
  type TemplateProgress,
  WORKFLOW_ENDS,
  type WorkflowExplanation,
  type WorkflowView,
  type WorkflowsResponse,
  type WorkflowSummary,
} from "./wire";
import { added, count, duration, grouped, type Groups, numberOf, plain, Rate, rateText, total } from "./words";

const RATE_SECONDS = 60;
const whileActive = (every: number) => (found: { status: string }) =>
  WORKFLOW_ENDS.includes(found.status) ? RESTING_EVERY : every;

export function Workflow({ id, query }: { id: number; query: Record<string, string> }) {
  const found = useLive<WorkflowsResponse>(
    "/workflows",
    { workflow_id: [id], counts: false },
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
        running={groupsOf(view.value).RUNNING}
        unfinished={unfinished(groupsOf(view.value))}
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
      <Graph id={id} templates={view.value?.progress.templates ?? []} every={RESTING_EVERY} />
      <Matrix id={id} every={whileActive(ACTIVE_EVERY)(summary)} />
      <Timeline id={id} every={every} />
      <Resources id={id} every={every} />
      <Versions id={id} every={RESTING_EVERY} />
      <History id={id} every={every} />
      <Tasks id={id} query={query} templates={view.value?.progress.templates ?? []} every={every} />
    </>
  );
}

const groupsOf = (view: WorkflowView | undefined): Groups =>
  grouped(added((view?.progress.templates ?? []).map((template) => template.counts)));
const unfinished = ({ PENDING, RUNNING, FATAL }: Groups): number => PENDING + RUNNING + FATAL;

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
    <Part title="Current state">
      {found.reasons.length ? <Reasons reasons={found.reasons} /> : <p class="quiet">There is nothing to say.</p>}
    </Part>
  );
}
