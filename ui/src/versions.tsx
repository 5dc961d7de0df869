// What changed in a workflow: its versions, and the tasks that users edited.

import { useLive } from "./api";
import { Command } from "./command";
import { diff } from "./diff";
import { Section, Shown, Table, TaskLink, Time } from "./parts";
import { recorded } from "./recorded";
import type { EditedTask, EditsResponse, RevisionsResponse, TaskRevision, Version, VersionsResponse } from "./wire";
import { count, numberOf, plain } from "./words";

export function Versions(props: { id: number; every: number }) {
  return (
    <Section title="Versions">
      <List {...props} />
      <Edits {...props} />
    </Section>
  );
}

function List({ id, every }: { id: number; every: number }) {
  const live = useLive<VersionsResponse>(`/workflows/${id}/versions`, {}, () => every);
  return (
    <Shown live={live}>
      {({ versions }) => (
        <>
          <Table<Version>
            label="Versions"
            rows={[...versions].reverse()}
            id={(row) => row.number}
            columns={[
              { head: "Version", cell: (row) => row.number, isNumber: true },
              { head: "State", cell: (row) => row.state },
              { head: "When", cell: (row) => <Time at={row.created_at} /> },
              { head: "Who", cell: (row) => plain(row.host ? `${row.user} on ${row.host}` : row.user) },
              { head: "Tasks", cell: (row) => (row.task_count === null ? "–" : count(row.task_count)), isNumber: true },
              { head: "Runs", cell: (row) => row.workflow_run_ids.join(", ") || "–" },
              { head: "What changed", cell: (row) => <Summary lines={row.summary} isFirst={row.number === 1} /> },
            ]}
          />
          {versions.length > 1 && !recorded && (
            <p>
              In detail: <Command text={`jobmon workflow versions ${id} --diff ${versions.at(-1)!.number}`} />
            </p>
          )}
        </>
      )}
    </Shown>
  );
}

function Summary({ lines, isFirst }: { lines: string[]; isFirst: boolean }) {
  if (!lines.length) return <>{isFirst ? "as first defined" : "–"}</>;
  return (
    <span class="lines">
      {lines.map((line, number) => (
        <span key={number}>{plain(line)}</span>
      ))}
    </span>
  );
}

function Edits({ id, every }: { id: number; every: number }) {
  const live = useLive<EditsResponse>(`/workflows/${id}/edited_tasks`, {}, () => every);
  return (
    <>
      <h3>Edited tasks</h3>
      <Shown live={live}>
        {({ edits, is_cut }) =>
          edits.length === 0 ? (
            <p class="quiet">No task differs from what the script defined.</p>
          ) : (
            <>
              <Table<EditedTask>
                label="Edited tasks"
                rows={edits}
                id={(row) => row.task_id}
                columns={[
                  { head: "Task", cell: (row) => <TaskLink id={row.task_id} name={row.name} /> },
                  { head: "Who", cell: (row) => plain(row.user) },
                  { head: "When", cell: (row) => <Time at={row.edited_at} /> },
                  { head: "What", cell: (row) => <Changes edit={row} /> },
                ]}
              />
              {is_cut && <p class="quiet">Only the newest {numberOf(edits.length, "edit")} are shown.</p>}
            </>
          )
        }
      </Shown>
    </>
  );
}

const valueText = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? Object.entries(value)
        .map(([name, one]) => `${name}: ${typeof one === "object" ? JSON.stringify(one) : String(one)}`)
        .join(", ")
    : String(value);

function Changes({ edit }: { edit: EditedTask }) {
  return (
    <span class="lines">
      {Object.keys(edit.was).map((name) => (
        <span key={name}>
          {name.replaceAll("_", " ")}: <Difference from={valueText(edit.was[name])} to={valueText(edit.now[name])} />
        </span>
      ))}
    </span>
  );
}

/** A text with the words that were removed and added. */
export function Difference({ from, to }: { from: string; to: string }) {
  return (
    <span class="difference">
      {diff(from, to).map(([kind, text], number) => {
        if (kind === "removed") return <del key={number}>{plain(text)}</del>;
        return kind === "added" ? <ins key={number}>{plain(text)}</ins> : <span key={number}>{plain(text)}</span>;
      })}
    </span>
  );
}

/** The superseded definitions of a task. */
export function Revisions({ id, every }: { id: number; every: number }) {
  const live = useLive<RevisionsResponse>(`/tasks/${id}/revisions`, {}, () => every);
  if (!live.value || live.value.revisions.length < 2) return null;
  const { revisions, edited_by, edited_at } = live.value;
  return (
    <details>
      <summary>
        {numberOf(revisions.length - 1, "earlier definition")}
        {edited_by && (
          <>
            , edited by {plain(edited_by)} <Time at={edited_at} />
          </>
        )}
      </summary>
      <Table<TaskRevision>
        label="Definitions"
        rows={revisions}
        id={(row) => row.number}
        columns={[
          { head: "Revision", cell: (row) => row.number, isNumber: true },
          { head: "Attempts", cell: (row) => row.attempts.join(", ") || "–" },
          {
            head: "Command",
            cell: (row) => {
              const before = revisions[revisions.indexOf(row) + 1];
              return <Difference from={before?.command ?? row.command} to={row.command} />;
            },
          },
          { head: "Task args", cell: (row) => plain(valueText(row.task_args)) || "–" },
        ]}
      />
    </details>
  );
}
