// One task: why it does not run, its attempts and what they wrote, and its neighbours.

import { useState } from "preact/hooks";
import { useLive } from "./api";
import { CopyButton } from "./command";
import { Files } from "./files";
import { Neighbourhood } from "./graph";
import { Log } from "./log";
import { ACTIVE_EVERY, COSTLY_EVERY, RESTING_EVERY } from "./pace";
import { SetActions } from "./set_actions";
import { AttemptBadge, HeldBadge, Pairs, Part, Reasons, Shown, TaskBadge, TaskLink, Time, Title } from "./parts";
import { address } from "./query";
import { Revisions } from "./versions";
import {
  type AttemptDetail,
  type DependenciesResponse,
  type Neighbour,
  REMOVED,
  TASK_ENDS,
  TASK_STATUS,
  type TaskDetail,
  type TaskExplanation,
} from "./wire";
import { between, bytes, count, duration, peak, plain, total } from "./words";

const NEIGHBOURS_MAX = 20;
const ATTEMPTS_MAX = 20;
const GIB = 2 ** 30;

export function Task({ id }: { id: number }) {
  const detail = useLive<TaskDetail>(`/tasks/${id}`, {}, ({ task }) =>
    TASK_ENDS.includes(task.status) ? RESTING_EVERY : ACTIVE_EVERY,
  );
  const task = detail.value?.task;
  return (
    <>
      <Title text={task?.name ?? `Task ${id}`}>
        {task && <TaskBadge status={task.status} />} {task?.held && <HeldBadge />}
      </Title>
      <Shown live={detail}>
        {({ task, workflow_id, attempts }) => (
          <>
            <p class="about">
              Task {id} of <a href={address(`/workflows/${workflow_id}`)}>workflow {workflow_id}</a> · template{" "}
              {plain(task.array_name)} · {task.num_attempts} of {task.max_attempts} attempts used ·{" "}
              {task.priority !== 0 && `priority ${task.priority} · `}
              {statusWord(task.status)} since <Time at={task.status_at} />
            </p>
            {task.status === REMOVED ? (
              <p>A later version of the workflow removed this task. It is not run, and no count includes it.</p>
            ) : (
              <SetActions workflowId={workflow_id} set={{ task_ids: [id] }} of={`task ${id}`} />
            )}
            <Part title="Command">
              <pre>{plain(task.command)}</pre>
              <CopyButton text={task.command} label="Copy the command" />
              <Revisions id={id} every={everyOf(task.status)} />
            </Part>
            <Why id={id} status={task.status} />
            <Attempts attempts={attempts} />
            <Files id={id} workflowId={workflow_id} every={everyOf(task.status)} />
            <Neighbourhood id={id} every={everyOf(task.status)} />
            <Neighbours id={id} status={task.status} />
          </>
        )}
      </Shown>
    </>
  );
}

const statusWord = (status: string): string =>
  (TASK_STATUS[status] ?? status).toLowerCase().replaceAll("_", " ");
const everyOf = (status: string): number => (TASK_ENDS.includes(status) ? RESTING_EVERY : COSTLY_EVERY);

function Why({ id, status }: { id: number; status: string }) {
  const live = useLive<TaskExplanation>(`/tasks/${id}/explanation`, {}, (found) => everyOf(found.status));
  return (
    <Part title={TASK_ENDS.includes(status) ? "How it ended" : "Current state"}>
      <Shown live={live}>{(found) => <Reasons reasons={found.reasons} />}</Shown>
    </Part>
  );
}

function Attempts({ attempts }: { attempts: AttemptDetail[] }) {
  const newest = attempts.slice(-ATTEMPTS_MAX).reverse();
  const note = attempts.length > newest.length ? `the newest ${newest.length} of ${attempts.length}` : "";
  return (
    <Part title="Attempts" note={note}>
      {newest.length === 0 && <p class="quiet">None has been made yet.</p>}
      {newest.map((attempt, number) => (
        <OneAttempt key={attempt.task_instance_id} attempt={attempt} isNewest={number === 0} />
      ))}
    </Part>
  );
}

function OneAttempt({ attempt, isNewest }: { attempt: AttemptDetail; isNewest: boolean }) {
  const [isOpen, setOpen] = useState(isNewest);
  return (
    <details class="attempt" open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        Attempt {attempt.number} <AttemptBadge status={attempt.status} /> {endingText(attempt)}
      </summary>
      {isOpen && <AttemptDetail attempt={attempt} />}
    </details>
  );
}

function endingText(attempt: AttemptDetail): string {
  const words = [];
  if (attempt.exit_code !== null && attempt.exit_code !== 0) words.push(`exit code ${attempt.exit_code}`);
  if (attempt.signal !== null) words.push(`signal ${attempt.signal}`);
  if (attempt.cause && !["exit code", "signal"].includes(attempt.cause)) words.push(attempt.cause);
  if (attempt.ended_at && !attempt.charged && attempt.status !== "D") words.push("does not count");
  if (attempt.host) words.push(`on ${attempt.host}`);
  const ran = between(attempt.started_at, attempt.ended_at) ?? attempt.wallclock_seconds;
  if (ran !== null && ran !== undefined) words.push(`ran ${duration(ran)}`);
  return plain(words.join(", "));
}

function AttemptDetail({ attempt }: { attempt: AttemptDetail }) {
  const asked = attempt.requested_resources;
  const cores = used(attempt.cpu_seconds, attempt.wallclock_seconds);
  return (
    <>
      <div class="columns">
        <Pairs
          values={[
            ["Queued", <Time at={attempt.queued_at} />],
            ["Launched", <Time at={attempt.launched_at} />],
            ["Started", <Time at={attempt.started_at} />],
            ["Ended", <Time at={attempt.ended_at} />],
            ["Waited", duration(between(attempt.queued_at, attempt.started_at))],
            ["Ran", duration(between(attempt.started_at, attempt.ended_at) ?? attempt.wallclock_seconds)],
          ]}
        />
        <Pairs
          values={[
            ["Host", plain(attempt.host ?? "–")],
            ["Cluster", plain(`${attempt.cluster_name} / ${attempt.queue_name}`)],
            ["Job there", plain(attempt.distributor_id ?? "–")],
            ["Process", attempt.pid ?? "–"],
            ["Run", attempt.workflow_run_id],
            ["Asked for", plain(askedText(asked))],
          ]}
        />
        <Pairs
          values={[
            ["Memory", `${peak(attempt.max_rss_bytes)}${ofMemory(asked["memory"])}`],
            ["Time", `${duration(attempt.wallclock_seconds)}${ofTime(asked["runtime"])}`],
            ["Cores busy", cores === undefined ? "–" : `${cores.toFixed(2)}${ofCores(asked["cores"])}`],
            ["Read", bytes(attempt.read_bytes)],
            ["Written", bytes(attempt.written_bytes)],
          ]}
        />
      </div>
      {attempt.error && <pre class="error">{plain(attempt.error)}</pre>}
      <Log attempt={attempt} />
    </>
  );
}

const used = (part: number | null, whole: number | null): number | undefined =>
  part !== null && whole ? part / whole : undefined;
const ofMemory = (asked: unknown): string => (typeof asked === "number" ? ` of ${bytes(asked * GIB)}` : "");
const ofTime = (asked: unknown): string => (typeof asked === "number" ? ` of ${duration(asked)}` : "");
const ofCores = (asked: unknown): string => (typeof asked === "number" ? ` of ${asked}` : "");

function askedText(asked: Record<string, unknown>): string {
  const shown = Object.entries(asked).filter(([, value]) => value !== null && value !== "");
  return shown.map(([name, value]) => `${name}: ${valueText(name, value)}`).join(", ") || "–";
}

function valueText(name: string, value: unknown): string {
  if (typeof value === "number" && name === "memory") return bytes(value * GIB);
  if (typeof value === "number" && name === "runtime") return duration(value);
  if (name === "env") return Object.keys(value as object).join(" "); // values may be secrets
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function Neighbours({ id, status }: { id: number; status: string }) {
  const live = useLive<DependenciesResponse>(`/tasks/${id}/dependencies`, { limit: NEIGHBOURS_MAX }, () =>
    everyOf(status),
  );
  return (
    <Part title="Neighbours">
      <Shown live={live}>
        {(found) => (
          <div class="columns">
            <Side title="Before it" tasks={found.upstream} counts={found.upstream_counts} />
            <Side title="After it" tasks={found.downstream} counts={found.downstream_counts} />
          </div>
        )}
      </Shown>
    </Part>
  );
}

function Side({ title, tasks, counts }: { title: string; tasks: Neighbour[]; counts: Record<string, number> }) {
  const all = total(counts);
  const states = Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([letter, number]) => `${count(number)} ${TASK_STATUS[letter] ?? letter}`);
  return (
    <div>
      <h3>
        {title} <small>{states.join(", ") || "nothing"}</small>
      </h3>
      <ul class="neighbours">
        {tasks.map((one) => (
          <li key={one.task_id}>
            <TaskBadge status={one.status} /> <TaskLink id={one.task_id} name={one.name} />
          </li>
        ))}
      </ul>
      {all > tasks.length && <p class="quiet">{count(all - tasks.length)} more</p>}
    </div>
  );
}
