// Actions on a workflow: a preview, a confirmation, and what it did.

import { useState } from "preact/hooks";
import { mayResume, maySteer, userOf } from "./access";
import { read, send } from "./api";
import { Command } from "./command";
import { Confirm, type Preview } from "./confirm";
import { Choice } from "./parts";
import { prioritized } from "./chunks";
import { limitText, priorityOf } from "./sets";
import {
  type ActiveRunsResponse,
  type BackgroundResumeResponse,
  type ConcurrencyResponse,
  MAX_CONCURRENTLY_RUNNING,
  PRIORITY_MAX,
  type PriorityResponse,
  type StopResponse,
  WORKFLOW_STATUS,
  WORKFLOW_UNDER_WAY,
} from "./wire";
import { numberOf } from "./words";

/** Stop, limit, priority, and the command that resumes it. */
export function WorkflowActions(props: {
  id: number;
  status: string;
  running: number;
  unfinished: number;
  templates: string[];
}) {
  const { id, status, running, unfinished, templates } = props;
  const [open, setOpen] = useState<"stop" | "limit" | "priority" | "resume" | null>(null);
  const isUnderWay = WORKFLOW_UNDER_WAY.includes(status);
  const close = () => setOpen(null);
  if (!maySteer()) return null;
  return (
    <div class="actions" role="group" aria-label="Actions on the workflow">
      {isUnderWay && (
        <button type="button" onClick={() => setOpen("stop")}>
          Stop
        </button>
      )}
      <button type="button" onClick={() => setOpen("limit")}>
        Limit
      </button>
      {WORKFLOW_STATUS[status] !== "DONE" && (
        <button type="button" onClick={() => setOpen("priority")}>
          Priority
        </button>
      )}
      {!isUnderWay && WORKFLOW_STATUS[status] !== "DONE" && mayResume() && (
        <button type="button" onClick={() => setOpen("resume")}>
          Resume
        </button>
      )}
      {!isUnderWay && WORKFLOW_STATUS[status] !== "DONE" && <Command text={`jobmon workflow resume ${id}`} />}
      {open === "stop" && <Stop id={id} running={running} onClose={close} />}
      {open === "resume" && <Resume id={id} unfinished={unfinished} onClose={close} />}
      {open === "limit" && <Limit id={id} templates={templates} onClose={close} />}
      {open === "priority" && <Priority id={id} templates={templates} onClose={close} />}
    </div>
  );
}

function Resume({ id, unfinished, onClose }: { id: number; unfinished: number; onClose: () => void }) {
  async function preview(): Promise<Preview> {
    const { runs } = await read<ActiveRunsResponse>(`/workflows/${id}/active_runs`, {});
    const run = runs.at(-1);
    if (run) return { texts: [`Nothing to resume: run ${run.workflow_run_id} of ${run.user} on ${run.host} is active.`], apply: null };
    return {
      texts: [
        `A new run will start in the background, with ${numberOf(unfinished, "unfinished task")}; failed ones are retried.`,
        "Commands get the environment with which your local server was started. To use that of a terminal, resume there" +
          `: jobmon workflow resume ${id}.`,
      ],
      apply: async () => {
        const message = { user: userOf() };
        const answer = await send<BackgroundResumeResponse>("POST", `/workflows/${id}/background_resume`, message);
        return { text: answer.message, command: `jobmon workflow attach ${id}` };
      },
    };
  }
  return <Confirm title={`Resume workflow ${id}`} verb="Resume" preview={preview} onClose={onClose} />;
}

function Stop({ id, running, onClose }: { id: number; running: number; onClose: () => void }) {
  const [kill, setKill] = useState("no");

  async function preview(): Promise<Preview> {
    const { runs } = await read<ActiveRunsResponse>(`/workflows/${id}/active_runs`, {});
    const run = runs.at(-1);
    if (!run) return { texts: ["Nothing to stop: no run is active."], apply: null };
    const end = kill === "yes" ? "will be terminated" : "may finish";
    return {
      texts: [
        `Run ${run.workflow_run_id} of ${run.user}, process ${run.pid} on ${run.host}, will launch nothing more.`,
        `${numberOf(running, "running task")} ${end}.`,
      ],
      apply: async () => {
        const message = { user: userOf(), kill: kill === "yes", workflow_run_id: run.workflow_run_id };
        const answer = await send<StopResponse>("POST", `/workflows/${id}/stop`, message);
        const rest = answer.to_kill
          ? `${numberOf(answer.to_kill, "attempt")} being terminated.`
          : `${numberOf(answer.left_running, "attempt")} may finish.`;
        return { text: `Run ${run.workflow_run_id} was stopped. ${rest} To resume:`, command: `jobmon workflow resume ${id}` };
      },
    };
  }
  return (
    <Confirm
      title={`Stop workflow ${id}`}
      verb="Stop"
      preview={preview}
      version={kill}
      onClose={onClose}
      choices={
        <Choice
          label="Running tasks"
          value={kill}
          choices={[
            ["no", "may finish"],
            ["yes", "are terminated"],
          ]}
          onValue={setKill}
        />
      }
    />
  );
}

function Limit({ id, templates, onClose }: { id: number; templates: string[]; onClose: () => void }) {
  const [template, setTemplate] = useState("");
  const [text, setText] = useState("");
  const route = template
    ? (`/workflows/${id}/arrays/${encodeURIComponent(template)}/concurrency` as const)
    : (`/workflows/${id}/concurrency` as const);
  const isNumber = /^\d{1,9}$/.test(text);

  async function change(to: number | null): Promise<Preview> {
    const { max_concurrently_running: now } = await read<ConcurrencyResponse>(route, {});
    const present = `Now: ${limitText(now, MAX_CONCURRENTLY_RUNNING)}.`;
    if (to === null) return { texts: [present, "Type a number; 0 pauses it."], apply: null };
    if (to === now) return { texts: [present, "Nothing to change."], apply: null };
    return {
      texts: [
        present,
        `Afterwards: ${limitText(to, MAX_CONCURRENTLY_RUNNING)}. Tasks that are queued or running are not affected.`,
      ],
      apply: async () => {
        const message = { max_concurrently_running: to, user: userOf(), expected: now };
        await send<ConcurrencyResponse>("PUT", route, message);
        return {
          text: `${template || `Workflow ${id}`}: ${limitText(to, MAX_CONCURRENTLY_RUNNING)}.`,
          inverse: { label: `Back to ${limitText(now, MAX_CONCURRENTLY_RUNNING)}`, preview: () => change(now) },
        };
      },
    };
  }
  return (
    <Confirm
      title={`Limit workflow ${id}`}
      verb="Set the limit"
      preview={() => change(isNumber ? Number(text) : null)}
      version={`${template} ${text}`}
      onClose={onClose}
      choices={
        <div class="filters">
          <TasksOf templates={templates} template={template} onTemplate={setTemplate} />
          <label>
            Tasks at once, at most
            <input inputMode="numeric" value={text} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        </div>
      }
    />
  );
}

/** The choice between a workflow and one of its templates. */
function TasksOf(props: { templates: string[]; template: string; onTemplate: (name: string) => void }) {
  const { templates, template, onTemplate } = props;
  return (
    <Choice
      label="Tasks of"
      value={template}
      choices={[["", "the workflow"], ...templates.map((name): [string, string] => [name, name])]}
      onValue={onTemplate}
    />
  );
}

function Priority({ id, templates, onClose }: { id: number; templates: string[]; onClose: () => void }) {
  const [template, setTemplate] = useState("");
  const [text, setText] = useState("");
  const priority = priorityOf(text, PRIORITY_MAX);
  const route = `/workflows/${id}/priorities`;
  const what = template || `Workflow ${id}`;
  const order = template
    ? "Tasks of templates with a higher priority start first."
    : "It orders the workflows that share cores or a queue; tasks of the one with the higher priority start first.";

  async function change(to: number | null): Promise<Preview> {
    if (to === null) return { texts: [`Type a number from -${PRIORITY_MAX} to ${PRIORITY_MAX}; the default is 0. ${order}`], apply: null };
    const message = { priority: to, template, user: userOf() };
    const { changed, former } = await send<PriorityResponse>("POST", route, { ...message, preview: true });
    const now = former === null ? "Now: several priorities." : `Now: ${former}.`;
    if (to === former) return { texts: [now, "Nothing to change."], apply: null };
    return {
      texts: [now, `Afterwards: ${to}, for ${numberOf(changed, "unfinished task")}. ${order}`],
      apply: async () => {
        const { recalled } = await prioritized(route, { ...message, ...(former !== null && { expected: former }) });
        return {
          text: `${what}: priority ${to}.${recalled ? ` ${numberOf(recalled, "less urgent attempt")} recalled.` : ""}`,
          ...(former !== null && { inverse: { label: `Back to priority ${former}`, preview: () => change(former) } }),
        };
      },
    };
  }
  return (
    <Confirm
      title={`Priority of workflow ${id}`}
      verb="Set the priority"
      preview={() => change(priority)}
      version={`${template} ${text}`}
      onClose={onClose}
      choices={
        <div class="filters">
          <TasksOf templates={templates} template={template} onTemplate={setTemplate} />
          <label>
            New priority
            <input value={text} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        </div>
      }
    />
  );
}
