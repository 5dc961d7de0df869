// Actions on sets of tasks: which tasks would change, the confirmation, and what was done.

import { useState } from "preact/hooks";
import { maySteer, userOf } from "./access";
import { send } from "./api";
import { holdInChunks, prioritized } from "./chunks";
import { Command } from "./command";
import { Confirm, type Outcome, type Preview } from "./confirm";
import {
  type Action,
  ACTIONS,
  changedText,
  type Edit,
  editProblem,
  editText,
  heldText,
  INVERSE,
  planTexts,
  priorityOf,
  STATUS_AFTER,
  type TaskSet,
  VERB,
} from "./sets";
import {
  type EditResponse,
  PRIORITY_MAX,
  type TaskSetPlan,
  type TaskUpdateResponse,
} from "./wire";
import { numberOf, plain } from "./words";

const NOTHING: Edit = { memory: "", runtime: "", cores: "", attempts: "", isReset: false };

/** What an action needs besides the tasks. */
interface Wanted {
  priority?: number;
  edit?: Edit;
}

async function previewSet(workflowId: number, action: Action, set: TaskSet, wanted: Wanted = {}): Promise<Preview> {
  const message = { action, ...set, ...(wanted.priority !== undefined && { priority: wanted.priority }) };
  const plan = await send<TaskSetPlan>("POST", `/workflows/${workflowId}/task_sets/plan`, message);
  const texts = planTexts(action, plan, workflowId, wanted.priority);
  if (wanted.edit) texts.push(editText(wanted.edit));
  return { texts, apply: plan.task_ids.length ? () => applyToSet(workflowId, action, plan, wanted) : null };
}

async function applyToSet(workflowId: number, action: Action, plan: TaskSetPlan, wanted: Wanted): Promise<Outcome> {
  const message = { task_ids: plan.task_ids, user: userOf(), unchanged_since: plan.snapshot };
  const route = `/workflows/${workflowId}`;
  const back = (inverse: Action, label: string, how: Wanted = {}) => ({
    label,
    preview: () => previewSet(workflowId, inverse, { task_ids: plan.task_ids }, how),
  });
  if (action === "hold" || action === "release") {
    const answer = await holdInChunks(`${route}/holds`, { ...message, held: action === "hold" });
    const inverse = INVERSE[action]!;
    return { text: heldText(action, plan.task_ids.length, answer), inverse: back(inverse, `${VERB[inverse]} again`) };
  }
  if (action === "priority") return prioritize(route, message, plan, wanted.priority!, back);
  if (action === "edit") return edit(route, message, plan, wanted.edit!, workflowId, back);
  const update = { ...message, status: STATUS_AFTER[action], force: true };
  const answer = await send<TaskUpdateResponse>("POST", `${route}/task_updates`, update);
  return {
    text: changedText(action, answer),
    ...(action === "rerun"
      ? !plan.is_active && { command: `jobmon workflow resume ${workflowId}` }
      : { inverse: back("rerun", "Run them after all") }),
  };
}

type Message = { task_ids: number[]; user: string; unchanged_since: number };
type Back = (inverse: Action, label: string, how?: Wanted) => NonNullable<Outcome["inverse"]>;

async function prioritize(route: string, message: Message, plan: TaskSetPlan, priority: number, back: Back): Promise<Outcome> {
  const answer = await prioritized(`${route}/priorities`, { ...message, priority });
  const { changed } = answer;
  const recalled = answer.recalled ? ` ${numberOf(answer.recalled, "less urgent attempt")} recalled.` : "";
  return {
    text: `${numberOf(changed, "task")} set to priority ${priority}.${recalled}`,
    ...(plan.priority !== null && {
      inverse: back("priority", `Back to priority ${plan.priority}`, { priority: plan.priority }),
    }),
  };
}

async function edit(
  route: string,
  message: Message,
  plan: TaskSetPlan,
  wanted: Edit,
  workflowId: number,
  back: Back,
): Promise<Outcome> {
  const { memory, runtime, cores, attempts, isReset } = wanted;
  const change = isReset ? { reset: true } : { memory, runtime, cores, ...(attempts && { max_attempts: Number(attempts) }) };
  const answer = await send<EditResponse>("POST", `${route}/adjustments`, { ...message, ...change });
  const recalled = answer.recalled ? ` ${numberOf(answer.recalled, "attempt")} recalled.` : "";
  return {
    text: `${numberOf(answer.changed, "task")} ${isReset ? "reset to the script" : "edited"}.${recalled}`,
    ...(!plan.is_active && { command: `jobmon workflow resume ${workflowId}` }),
    ...(!isReset && { inverse: back("edit", "Back to the script", { edit: { ...NOTHING, isReset: true } }) }),
  };
}

/** Buttons for what can be done with a set of tasks; `of` says which tasks these are. */
export function SetActions({ workflowId, set, of }: { workflowId: number; set: TaskSet; of: string }) {
  const [open, setOpen] = useState<Action | null>(null);
  if (!maySteer()) return null;
  const shown = { workflowId, set, of, onClose: () => setOpen(null) };
  return (
    <div class="actions" role="group" aria-label={`Actions on ${of}`}>
      {ACTIONS.map((action) => (
        <button key={action} type="button" onClick={() => setOpen(action)}>
          {VERB[action]}
        </button>
      ))}
      <small>{plain(of)}</small>
      {open === "priority" && <Prioritize {...shown} />}
      {open === "edit" && <EditSet {...shown} />}
      {open && open !== "priority" && open !== "edit" && (
        <Confirm
          title={`${VERB[open]} ${of}`}
          verb={VERB[open]}
          preview={() => previewSet(workflowId, open, set)}
          onClose={shown.onClose}
        />
      )}
    </div>
  );
}

interface Shown {
  workflowId: number;
  set: TaskSet;
  of: string;
  onClose: () => void;
}

function Prioritize({ workflowId, set, of, onClose }: Shown) {
  const [text, setText] = useState("");
  const priority = priorityOf(text, PRIORITY_MAX);

  async function preview(): Promise<Preview> {
    if (priority !== null) return previewSet(workflowId, "priority", set, { priority });
    return { texts: [`Type a number from -${PRIORITY_MAX} to ${PRIORITY_MAX}; tasks with higher ones start first.`], apply: null };
  }
  return (
    <Confirm
      title={`Priority of ${of}`}
      verb="Set the priority"
      preview={preview}
      version={text}
      onClose={onClose}
      choices={
        <div class="filters">
          <Field label="New priority" text={text} onText={setText} />
        </div>
      }
    />
  );
}

function EditSet({ workflowId, set, of, onClose }: Shown) {
  const [edit, setEdit] = useState(NOTHING);
  const problem = editProblem(edit);

  async function preview(): Promise<Preview> {
    return problem ? { texts: [problem], apply: null } : previewSet(workflowId, "edit", set, { edit });
  }
  const field = (label: string, name: "memory" | "runtime" | "cores" | "attempts") => (
    <Field label={label} text={edit[name]} isOff={edit.isReset} onText={(text) => setEdit({ ...edit, [name]: text })} />
  );
  const only = set.task_ids?.length === 1 ? set.task_ids[0] : null;
  return (
    <Confirm
      title={`Edit ${of}`}
      verb="Edit"
      preview={preview}
      version={JSON.stringify(edit)}
      onClose={onClose}
      choices={
        <>
          <div class="filters">
            {field("Memory, such as 8G", "memory")}
            {field("Time, such as 2h", "runtime")}
            {field("Cores", "cores")}
            {field("Attempts, at most", "attempts")}
          </div>
          <label class="check">
            <input
              type="checkbox"
              checked={edit.isReset}
              onChange={(event) => setEdit({ ...NOTHING, isReset: event.currentTarget.checked })}
            />
            Back to what the script defined
          </label>
          <p class="quiet">
            Commands are edited in a terminal:{" "}
            <Command text={`jobmon task edit ${only ?? "ID"} --command 'TEXT'`} />
          </p>
        </>
      }
    />
  );
}

function Field(props: { label: string; text: string; isOff?: boolean; onText: (text: string) => void }) {
  return (
    <label>
      {props.label}
      <input
        value={props.text}
        disabled={props.isOff ?? false}
        onInput={(event) => props.onText(event.currentTarget.value)}
      />
    </label>
  );
}

/** Which tasks an action applies to, in words. */
export function selectionText(selected: number, isFiltered: boolean): string {
  if (selected) return numberOf(selected, "selected task");
  return isFiltered ? "all tasks that match the filter" : "all tasks";
}
