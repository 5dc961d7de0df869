// Who did what to a workflow, newest first.

import { useLive } from "./api";
import { Section, Shown, Table, Time } from "./parts";
import type { HistoryEntry, HistoryResponse } from "./wire";
import { plain } from "./words";

const ENTRIES_MAX = 200;

export function History({ id, every }: { id: number; every: number }) {
  return (
    <Section title="History">
      <Entries id={id} every={every} />
    </Section>
  );
}

function Entries({ id, every }: { id: number; every: number }) {
  const live = useLive<HistoryResponse>(`/workflows/${id}/history`, { limit: ENTRIES_MAX }, () => every);
  return (
    <Shown live={live}>
      {({ entries }) => (
        <>
          <Table<HistoryEntry & { number: number }>
            label="History"
            rows={entries.map((entry, number) => ({ ...entry, number: entries.length - number }))}
            id={(row) => row.number}
            columns={[
              { head: "When", cell: (row) => <Time at={row.at} /> },
              { head: "Who", cell: (row) => plain(whoText(row)) },
              { head: "What", cell: (row) => plain(row.action) },
              { head: "Details", cell: (row) => plain(detailsText(row.details)) },
            ]}
          />
          {entries.length === ENTRIES_MAX && <p class="quiet">Older entries: jobmon workflow history {id}</p>}
        </>
      )}
    </Shown>
  );
}

/** The person as named in the request, and the principal of its credential if that says more. */
function whoText({ user, actor, principal }: HistoryEntry): string {
  const name = user || actor;
  return principal && principal !== name ? `${name} (${principal})` : name;
}

function detailsText(details: Record<string, unknown>): string {
  return Object.entries(details)
    .filter(([, value]) => !(Array.isArray(value) && value.length === 0))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${valueText(value)}`)
    .join(", ");
}

function valueText(value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(valueText).join(" ");
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}
