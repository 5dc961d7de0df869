// The files that a task declares: what it reads and writes, and how its attempts found them.

import { useLive } from "./api";
import { Part, Shown, Table, Time } from "./parts";
import { recorded } from "./recorded";
import type { DeclaredFile, DeclaredFiles } from "./wire";
import { bytes, numberOf, plain } from "./words";

const MICROSECONDS_PER_MILLISECOND = 1_000;

/** Nothing where a task declares no files; a report does not contain them. */
export function Files({ id, workflowId, every }: { id: number; workflowId: number; every: number }) {
  const path = recorded ? null : (`/workflows/${workflowId}/files` as const);
  const query = { task_id: id };
  const inputs = useLive<DeclaredFiles>(path, { ...query, inputs: true }, () => every);
  const outputs = useLive<DeclaredFiles>(path, { ...query, inputs: false }, () => every);
  const rows = [
    ...(inputs.value?.files ?? []).map((file) => ({ ...file, kind: "input" })),
    ...(outputs.value?.files ?? []).map((file) => ({ ...file, kind: "output" })),
  ];
  const isRefused = inputs.refused || outputs.refused;
  if (!rows.length && !isRefused) return null;
  return (
    <Part title="Files" note={`in ${inputs.value?.folder ?? outputs.value?.folder ?? "its working folder"}`}>
      <Shown live={inputs.refused ? inputs : outputs}>
        {() => (
          <Table<DeclaredFile & { kind: string }>
            label="Files"
            rows={rows}
            id={(row) => `${row.kind} ${row.path}`}
            columns={[
              { head: "Kind", cell: (row) => row.kind },
              { head: "Name", cell: (row) => plain(row.name) || "–" },
              { head: "Path", cell: (row) => plain(row.path) },
              { head: "Found", cell: (row) => foundText(row) },
              { head: "Size", cell: (row) => (row.found?.matches ? bytes(row.found.size_bytes) : "–"), isNumber: true },
              { head: "Changed", cell: (row) => <Time at={changedAt(row)} /> },
            ]}
          />
        )}
      </Shown>
    </Part>
  );
}

function foundText({ found }: DeclaredFile): string {
  if (!found) return "not yet";
  return found.matches === 1 ? "yes" : found.matches ? numberOf(found.matches, "file") : "missing";
}

const changedAt = ({ found }: DeclaredFile): string | null =>
  found?.matches ? new Date(found.modified / MICROSECONDS_PER_MILLISECOND).toISOString() : null;
