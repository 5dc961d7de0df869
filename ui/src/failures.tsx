// What went wrong in a workflow, brought together by what failures have in common.

import type { ComponentChildren } from "preact";
import { useLive } from "./api";
import { Part, Shown, TaskLink, Time } from "./parts";
import { address } from "./query";
import { recorded } from "./recorded";
import type { FailureConcentration, FailureGroup, FailuresResponse } from "./wire";
import { count, numberOf, plain, share } from "./words";

const GROUPS_MAX = 10;
const HOSTS_MAX = 3;
const EXAMPLE_CHARACTERS_MAX = 4_000;
const VALUE_CHARACTERS_MAX = 60;
/** What a concentration is about, if not about a node argument. */
const HOST = "host";
const CHANCE_LEAST = "less than 1e-300";
/** Causes that the ending says already. */
const PLAIN_CAUSES = ["exit code", "signal"];

export function Failures({ id, every }: { id: number; every: number }) {
  const live = useLive<FailuresResponse>(`/workflows/${id}/failures`, { limit: GROUPS_MAX }, () => every);
  return (
    <Part title="What went wrong" note={live.value?.failures ? noteOf(live.value) : ""}>
      <Shown live={live}>
        {(found) => (found.failures ? <Groups id={id} found={found} /> : <p class="quiet">No attempt has failed.</p>)}
      </Shown>
    </Part>
  );
}

function noteOf(found: FailuresResponse): string {
  const attempts = numberOf(found.failures, "failed attempt");
  return `${found.is_cut ? "the newest " : ""}${attempts} in ${numberOf(found.group_count, "group")}`;
}

function Groups({ id, found }: { id: number; found: FailuresResponse }) {
  const more = found.group_count - found.groups.length;
  return (
    <>
      {found.concentrations.length > 0 && (
        <ul class="reasons">
          {found.concentrations.map((one) => (
            <li key={`${one.what} ${one.value}`}>
              {concentrationText(one)}
              {one.what === HOST && !recorded && (
                <>
                  {" · "}
                  <FailedOn id={id} host={one.value}>
                    failed tasks of this host
                  </FailedOn>
                </>
              )}
            </li>
          ))}
        </ul>
      )}
      <ol class="groups">
        {found.groups.map((group) => (
          <Group key={`${group.template} ${group.ending} ${group.cause} ${group.message}`} id={id} group={group} />
        ))}
      </ol>
      {more > 0 && <p class="quiet">{numberOf(more, "smaller group")} not shown; jobmon workflow errors shows all.</p>}
    </>
  );
}

/** A link to the tasks whose newest attempt failed on a host, where they can be rerun. */
function FailedOn(props: { id: number; host: string; template?: string; children: ComponentChildren }) {
  const { id, host, template, children } = props;
  return <a href={address(`/workflows/${id}`, { status: "FATAL", template, host })}>{children}</a>;
}

function concentrationText(found: FailureConcentration): string {
  const isHost = found.what === HOST;
  const isLong = found.value.length > VALUE_CHARACTERS_MAX;
  const value = isLong ? `${found.value.slice(0, VALUE_CHARACTERS_MAX)}…` : found.value;
  const where = isHost ? `on ${value}` : `with ${found.what} = ${value}`;
  return plain(
    `${count(found.failed)} of ${count(found.failures)} ${isHost ? "failures" : "failed tasks"} ${where}; ` +
      `${count(found.count)} of ${count(found.total)} ${isHost ? "attempts ran there" : "tasks have it"} ` +
      `(by chance: ${found.chance ? found.chance.toExponential(0) : CHANCE_LEAST})`,
  );
}

function Group({ id, group }: { id: number; group: FailureGroup }) {
  const cause = group.cause && !PLAIN_CAUSES.includes(group.cause) ? ` (${group.cause})` : "";
  const hosts = Object.entries(group.hosts).slice(0, HOSTS_MAX);
  const example = group.example.trimEnd().slice(0, EXAMPLE_CHARACTERS_MAX);
  return (
    <li>
      <div class="group">
        <b title={`${share(group.share)} of the failed attempts`}>
          {count(group.count)} × <small>{share(group.share)}</small>
        </b>
        <span>
          {plain(group.template)}: {plain(group.ending)}
          {plain(cause)}
        </span>
        <span class="quiet">
          {hosts.length > 0 && "on "}
          {hosts.map(([host, number]) => (
            <span key={host}>
              {recorded ? (
                plain(host)
              ) : (
                <FailedOn id={id} host={host} template={group.template}>
                  {plain(host)}
                </FailedOn>
              )}{" "}
              ({count(number)}),{" "}
            </span>
          ))}
          <Time at={group.first_at} />
          {group.last_at !== group.first_at && (
            <>
              {" to "}
              <Time at={group.last_at} />
            </>
          )}
        </span>
      </div>
      <p class="message">{plain(group.message) || "no message"}</p>
      <p>
        Such as <TaskLink id={group.task_id} name={group.task_name} />
        {!recorded && (
          <>
            {" · "}
            <a href={address(`/workflows/${id}`, { status: "FATAL", template: group.template })}>
              failed tasks of this template
            </a>
          </>
        )}
      </p>
      {example && example !== group.message && (
        <details>
          <summary>What it said</summary>
          <pre>{plain(example)}</pre>
        </details>
      )}
    </li>
  );
}
