// What attempts asked for and used, by template, and which request would do.

import { useLive } from "./api";
import { Command } from "./command";
import { Section, Shown, SoFar, Table } from "./parts";
import type { Figures, SizingResponse, TemplateSizing } from "./wire";
import { bytes, count, duration, peak, plain, share } from "./words";

const GIB = 2 ** 30;
/** A part of the attempts is better than nothing, for a moment. */
const PARTIAL = { partial: true };

export function Resources({ id, every }: { id: number; every: number }) {
  return (
    <Section title="Resources">
      <Usage id={id} every={every} />
    </Section>
  );
}

function Usage({ id, every }: { id: number; every: number }) {
  const live = useLive<SizingResponse>(
    `/workflows/${id}/sizing`,
    {},
    ({ share }) => (share < 1 ? 0 : every),
    PARTIAL,
  );
  return (
    <Shown live={live}>
      {({ templates, share }) =>
        templates.length === 0 ? (
          <p class="quiet">{share < 1 ? "Reading …" : "No attempt has ended yet."}</p>
        ) : (
          <>
            <SoFar share={share} />
            <Table<TemplateSizing>
              label="Resources by template"
              rows={templates}
              id={(row) => `${row.template_name} ${row.task_template_version_id}`}
              columns={[
                { head: "Template", cell: (row) => plain(row.template_name) },
                { head: "Attempts", cell: (row) => count(row.attempts), isNumber: true },
                { head: "Memory", cell: (row) => <Used asked={row.memory_requested} used={row.memory_used} text={gib} usedText={usedGib} /> },
                { head: "Cores", cell: (row) => <Used asked={row.cores_requested} used={row.cores_used} text={cores} /> },
                { head: "Time", cell: (row) => <Used asked={row.runtime_requested} used={row.runtime_used} text={duration} /> },
                {
                  head: "Wasted core-hours",
                  cell: (row) => wasteText(row.core_hours.held, row.core_hours),
                  isNumber: true,
                },
                { head: "Would suffice", cell: (row) => plain(proposalText(row)) },
              ]}
            />
            <p>
              As a file of requests: <Command text={`jobmon workflow resources yaml ${id}`} />
            </p>
          </>
        )
      }
    </Shown>
  );
}

const gib = (value: number): string => bytes(Math.round(value * GIB));
const usedGib = (value: number): string => peak(Math.round(value * GIB));
const cores = (value: number): string => value.toFixed(2);

/** The largest use and the median, with a bar for its share of the request. */
function Used(props: {
  asked: Figures | null;
  used: Figures | null;
  text: (value: number) => string;
  usedText?: (value: number) => string;
}) {
  const { asked, used, text, usedText = text } = props;
  if (!used) return <>{asked ? `asked for ${text(asked.maximum)}; not measured` : "–"}</>;
  const part = asked && asked.maximum > 0 ? used.maximum / asked.maximum : null;
  return (
    <>
      {usedText(used.maximum)}
      {asked ? ` of ${text(asked.maximum)}` : ""}
      {part !== null && (
        <span class="bar" role="img" aria-label={`${share(Math.min(part, 9.99))} of the request`}>
          <i class={part > 1 ? "tone-fatal" : "tone-running"} style={{ width: `${Math.min(100, 100 * part)}%` }} />
        </span>
      )}
      <small>median {usedText(used.median)}</small>
    </>
  );
}

function wasteText(held: number, waste: { over_request: number; failed: number; killed: number }): string {
  const lost = waste.over_request + waste.failed + waste.killed;
  return held > 0 ? `${lost.toFixed(lost < 10 ? 2 : 0)} (${share(lost / held)})` : "–";
}

function proposalText(row: TemplateSizing): string {
  const words = Object.entries(row.proposed).map(([name, value]) => `${name} ${value}`);
  if (!words.length) return "–";
  const risk = row.would_kill ? `; would have killed ${count(row.would_kill)} of ${count(row.measured)}` : "";
  return words.join(", ") + risk;
}
