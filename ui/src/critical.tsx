// The critical path: the chain of tasks that determined when the workflow was over.

import { useLive } from "./api";
import { Shown, Table, TaskBadge, TaskLink, Time } from "./parts";
import type { CriticalPath as Path, CriticalTask } from "./wire";
import { between, duration, numberOf, plain } from "./words";

const WIDTH = 1_000;
const HEIGHT = 24;
/** Tasks that take less than this are still visible. */
const WIDTH_LEAST = 2;
const ROWS_MAX = 50;

interface Props {
  id: number;
  every: number;
  /** The time axis of the chart above, milliseconds. */
  start: number;
  end: number;
  /** The number of the series of a template in the chart above. */
  seriesOf: (template: string) => number;
}

export function CriticalPath({ id, every, ...axis }: Props) {
  const live = useLive<Path>(`/workflows/${id}/critical_path`, {}, () => every);
  return (
    <>
      <h3>Critical path</h3>
      <Shown live={live}>
        {(found) => (found.tasks.length ? <Drawn found={found} {...axis} /> : <p class="quiet">No attempt has started yet.</p>)}
      </Shown>
    </>
  );
}

const ranSeconds = (task: CriticalTask, end: number): number =>
  between(task.started_at, task.ended_at) ?? Math.max(0, (end - Date.parse(task.started_at)) / 1000);

function Drawn({ found, start, end, seriesOf }: { found: Path } & Omit<Props, "id" | "every">) {
  const { tasks, is_cut } = found;
  const sum = (of: (task: CriticalTask) => number) => tasks.reduce((seconds, task) => seconds + of(task), 0);
  const ran = sum((task) => ranSeconds(task, end));
  const waited = sum((task) => task.waited_seconds);
  const text = `${numberOf(tasks.length, "task")}, which ran ${duration(ran)} and waited ${duration(waited)} in between`;
  const x = (at: number) => Math.min(WIDTH, Math.max(0, ((at - start) / Math.max(1, end - start)) * WIDTH));
  const longest = [...tasks].sort((a, b) => ranSeconds(b, end) - ranSeconds(a, end)).slice(0, ROWS_MAX);
  const shown = new Set(longest);
  const rows = tasks.filter((task) => shown.has(task));
  return (
    <>
      <p>
        {text}
        {is_cut && "; the beginning is not shown"}. Each task is the upstream task of the next one that ended last. Faster
        tasks end the workflow sooner only if they are on this path.
      </p>
      <svg
        class="chart path-chart"
        role="img"
        aria-label={`Critical path: ${text}`}
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
      >
        {tasks.map((task) => {
          const from = x(Date.parse(task.started_at));
          const to = x(task.ended_at === null ? end : Date.parse(task.ended_at));
          return (
            <rect
              key={task.task_id}
              class={`bar-of-path series-${seriesOf(task.template)}`}
              x={from}
              y="3"
              width={Math.max(WIDTH_LEAST, to - from)}
              height={HEIGHT - 6}
            >
              <title>{plain(`${task.name}: ${duration(ranSeconds(task, end))}`)}</title>
            </rect>
          );
        })}
      </svg>
      <Table<CriticalTask>
        label="Critical path"
        rows={rows}
        id={(row) => row.task_id}
        columns={[
          { head: "Task", cell: (row) => <TaskLink id={row.task_id} name={row.name} /> },
          { head: "Status", cell: (row) => <TaskBadge status={row.status} /> },
          { head: "Template", cell: (row) => plain(row.template) },
          { head: "Waited", cell: (row) => duration(row.waited_seconds), isNumber: true },
          { head: "Ran", cell: (row) => duration(ranSeconds(row, end)), isNumber: true },
          { head: "Ended at", cell: (row) => <Time at={row.ended_at} /> },
        ]}
      />
      {rows.length < tasks.length && <p class="quiet">Only the {ROWS_MAX} longest tasks are listed.</p>}
    </>
  );
}
