// A dialog that shows what an action would do, does it if that is confirmed, and offers the inverse.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused, readAgain } from "./api";
import { Command, WithCommands } from "./command";
import { plain } from "./words";

const CONFLICT = 409;
const NO_ANSWER = "The server did not answer. The history of the workflow shows whether it acted.";

/** What an action would do; `apply` null: nothing. */
export interface Preview {
  texts: string[];
  apply: (() => Promise<Outcome>) | null;
}

/** What it did, and what takes it back. */
export interface Outcome {
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
export function Confirm({ title, verb, preview, choices, version = "", onClose }: ConfirmProps) {
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
