// Actions on a workflow and on sets of its tasks: a preview, a confirmation, and what it did.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { maySteer, userOf } from "./access";
import { Refused, read, readAgain, send } from "./api";
import { holdInChunks } from "./chunks";
import { Command, WithCommands } from "./command";
import { Choice } from "./parts";
import { type Action, ACTIONS, heldText, INVERSE, limitText, planTexts, rerunText, type TaskSet, VERB } from "./sets";
import {
  type ActiveRunsResponse,
  type ConcurrencyResponse,
  MAX_CONCURRENTLY_RUNNING,
  type StopResponse,
  type TaskSetPlan,
  type TaskUpdateResponse,
  WORKFLOW_STATUS,
  WORKFLOW_UNDER_WAY,
} from "./wire";
import { numberOf, plain } from "./words";

const CONFLICT = 409;
const NO_ANSWER = "The server did not answer. The history of the workflow shows whether it acted.";
const REOPENED = "G";

/** What an action would do; `apply` null: nothing. */
interface Preview {
  texts: string[];
  apply: (() => Promise<Outcome>) | null;
}

/** What it did, and what takes it back. */
interface Outcome {
  text: string;
  command?: string;
  inverse?: { label: string; preview: () => Promise<Preview> };
}

type State =
  | { kind: "reading" }
  | { kind: "asking"; preview: Preview; conflict: string; version: string }
  | { kind: "applying" }
  | { kind: "done"; outcome: Outcome }
  | { kind: "failed"; message: string };

const messageOf = (error: unknown): string => (error instanceof Refused ? error.message : NO_ANSWER);

interface ConfirmProps {
  title: string;
  /** The word on the button that acts. */
  verb: string;
  preview: () => Promise<Preview>;
  /** Choices that the preview depends on; `version` changes with them. */
  choices?: ComponentChildren;
  version?: string;
  onClose: () => void;
}

/** A dialog that shows what would change, and changes it only if that is confirmed. */
function Confirm({ title, verb, preview, choices, version = "", onClose }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [state, setState] = useState<State>({ kind: "reading" });
  const [shown, setShown] = useState({ verb, preview, isBack: false });
  /** Counts the previews: only the newest is shown. */
  const turn = useRef(0);

  async function look(from: () => Promise<Preview>, conflict = "") {
    turn.current += 1;
    const mine = turn.current;
    try {
      const found = await from();
      if (mine === turn.current) setState({ kind: "asking", preview: found, conflict, version });
    } catch (error) {
      if (mine === turn.current) setState({ kind: "failed", message: messageOf(error) });
    }
  }

  async function apply(act: () => Promise<Outcome>) {
    turn.current += 1;
    setState({ kind: "applying" });
    try {
      setState({ kind: "done", outcome: await act() });
    } catch (error) {
      if (error instanceof Refused && error.status === CONFLICT) await look(shown.preview, error.message);
      else setState({ kind: "failed", message: messageOf(error) });
    }
    readAgain();
  }

  useEffect(() => dialog.current?.showModal(), []);
  useEffect(() => {
    setShown({ verb, preview, isBack: false });
    void look(preview);
  }, [version]);
  return (
    <dialog ref={dialog} aria-label={title} onClose={onClose}>
      <h2>{plain(title)}</h2>
      {state.kind !== "done" && state.kind !== "applying" && !shown.isBack && choices}
      {state.kind === "reading" && <p class="quiet">Reading …</p>}
      {state.kind === "applying" && <p class="quiet">Working …</p>}
      {state.kind === "failed" && (
        <p class="problem" role="alert">
          {plain(state.message)}
        </p>
      )}
      {state.kind === "asking" && (
        <>
          {state.conflict && (
            <p class="problem" role="alert">
              {plain(state.conflict)}
            </p>
          )}
          <ul class="reasons" aria-label="Preview">
            {state.preview.texts.map((text) => (
              <li key={text}>
                <WithCommands text={text} />
              </li>
            ))}
          </ul>
        </>
      )}
      {state.kind === "done" && (
        <>
          <p role="status">{plain(state.outcome.text)}</p>
          {state.outcome.command && <Command text={state.outcome.command} />}
        </>
      )}
      <div class="actions">
        {/* not with the preview of an earlier choice */}
        {state.kind === "asking" && state.version === version && state.preview.apply && (
          <button type="button" class="act" onClick={() => void apply(state.preview.apply!)}>
            {shown.verb}
          </button>
        )}
        {state.kind === "done" && state.outcome.inverse && (
          <button
            type="button"
            onClick={() => {
              const { label, preview: back } = state.outcome.inverse!;
              setShown({ verb: label, preview: back, isBack: true });
              setState({ kind: "reading" });
              void look(back);
            }}
          >
            {state.outcome.inverse.label}
          </button>
        )}
        <button type="button" onClick={() => dialog.current?.close()} disabled={state.kind === "applying"}>
          {state.kind === "done" ? "Close" : "Cancel"}
        </button>
      </div>
    </dialog>
  );
}

// --- sets of tasks -----------------------------------------------------------------------------------------------------

async function previewSet(workflowId: number, action: Action, set: TaskSet): Promise<Preview> {
  const plan = await send<TaskSetPlan>("POST", `/workflows/${workflowId}/task_sets/plan`, { action, ...set });
  return {
    texts: planTexts(action, plan, workflowId),
    apply: plan.task_ids.length ? () => applyToSet(workflowId, action, plan) : null,
  };
}

async function applyToSet(workflowId: number, action: Action, plan: TaskSetPlan): Promise<Outcome> {
  const message = { task_ids: plan.task_ids, user: userOf(), unchanged_since: plan.snapshot };
  const route = `/workflows/${workflowId}`;
  if (action === "rerun") {
    const update = { ...message, status: REOPENED, force: true };
    const answer = await send<TaskUpdateResponse>("POST", `${route}/task_updates`, update);
    const command = plan.is_active ? undefined : `jobmon workflow resume ${workflowId}`;
    return { text: rerunText(answer), ...(command && { command }) };
  }
  const answer = await holdInChunks(`${route}/holds`, { ...message, held: action === "hold" });
  const back = INVERSE[action]!;
  return {
    text: heldText(action, plan.task_ids.length, answer),
    inverse: { label: `${VERB[back]} again`, preview: () => previewSet(workflowId, back, { task_ids: plan.task_ids }) },
  };
}

/** Buttons for what can be done with a set of tasks; `of` says which tasks these are. */
export function SetActions({ workflowId, set, of }: { workflowId: number; set: TaskSet; of: string }) {
  const [open, setOpen] = useState<Action | null>(null);
  if (!maySteer()) return null;
  return (
    <div class="actions" role="group" aria-label={`Actions on ${of}`}>
      {ACTIONS.map((action) => (
        <button key={action} type="button" onClick={() => setOpen(action)}>
          {VERB[action]}
        </button>
      ))}
      <small>{plain(of)}</small>
      {open && (
        <Confirm
          title={`${VERB[open]} ${of}`}
          verb={VERB[open]}
          preview={() => previewSet(workflowId, open, set)}
          onClose={() => setOpen(null)}
        />
      )}
    </div>
  );
}

// --- the workflow ------------------------------------------------------------------------------------------------------

/** Stop, limit, and the command that resumes it. */
export function WorkflowActions(props: { id: number; status: string; running: number; templates: string[] }) {
  const { id, status, running, templates } = props;
  const [open, setOpen] = useState<"stop" | "limit" | null>(null);
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
      {!isUnderWay && WORKFLOW_STATUS[status] !== "DONE" && <Command text={`jobmon workflow resume ${id}`} />}
      {open === "stop" && <Stop id={id} running={running} onClose={close} />}
      {open === "limit" && <Limit id={id} templates={templates} onClose={close} />}
    </div>
  );
}

function Stop({ id, running, onClose }: { id: number; running: number; onClose: () => void }) {
  const [kill, setKill] = useState("no");

  async function preview(): Promise<Preview> {
    const { runs } = await read<ActiveRunsResponse>(`/workflows/${id}/active_runs`);
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
  const part = template && `/arrays/${encodeURIComponent(template)}`;
  const route = `/workflows/${id}${part}/concurrency`;
  const isNumber = /^\d{1,9}$/.test(text);

  async function change(to: number | null): Promise<Preview> {
    const { max_concurrently_running: now } = await read<ConcurrencyResponse>(route);
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
          <Choice
            label="Tasks of"
            value={template}
            choices={[["", "the workflow"], ...templates.map((name): [string, string] => [name, name])]}
            onValue={setTemplate}
          />
          <label>
            Tasks at once, at most
            <input inputMode="numeric" value={text} onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        </div>
      }
    />
  );
}

/** Which tasks an action applies to, in words. */
export function selectionText(selected: number, isFiltered: boolean): string {
  if (selected) return numberOf(selected, "selected task");
  return isFiltered ? "all tasks that match the filter" : "all tasks";
}
