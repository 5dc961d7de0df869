// What depends on what: the templates of a workflow, and the neighbourhood of a task.

import { useLive } from "./api";
import { type Edge, layersOf, routed } from "./layout";
import { doneShare, Part, Section, Shown } from "./parts";
import { address } from "./query";
import { hasTask } from "./recorded";
import { TASK_GROUP, TASK_STATUS, type TaskGraph, type TemplateGraph, type TemplateProgress } from "./wire";
import { count, grouped, type Groups, numberOf, plain, total } from "./words";

/** More nodes than that nobody can read. */
const NODES_MAX = 500;
const STEPS = 2;
const WIDTH = 190;
/** So many characters fit into a box. */
const NOTE_CHARACTERS_MAX = 28;
const HEIGHT = 58;
const ACROSS = 60;
const DOWN = 14;
/** The height of a place where a long edge passes between nodes, and the length of an arrow's head. */
const LANE = 22;
const HEAD = 8;
const NAME_CHARACTERS = 24;
const BAR_GROUPS = ["DONE", "SKIPPED", "RUNNING", "FATAL"] as const;

interface Node {
  name: string;
  /** The second line. */
  note: string;
  tone: string;
  href: string | null;
  /** Shares of the bar at its foot. */
  bar: [tone: string, share: number][];
}

interface Drawn {
  label: string;
  nodes: Node[];
  edges: Edge[];
  layers: number[];
  /** Of each edge: what it stands for, and whether a failure passes along it. */
  about: { text: string; isLit: boolean }[];
}

const shortened = (name: string): string =>
  name.length > NAME_CHARACTERS ? `${name.slice(0, NAME_CHARACTERS - 1)}…` : name;

type Point = [x: number, y: number];

/** The upper left corners of nodes and of the places where edges pass, and the size of it all. */
function placed(rows: number[][], nodes: number): { at: Map<number, Point>; width: number; height: number } {
  const room = (node: number) => (node < nodes ? HEIGHT + DOWN : LANE);
  const heights = rows.map((row) => row.reduce((sum, node) => sum + room(node), 0));
  const height = Math.max(...heights);
  const at = new Map<number, Point>();
  rows.forEach((row, layer) => {
    let y = (height - heights[layer]!) / 2 + 1;
    for (const node of row) {
      at.set(node, [layer * (WIDTH + ACROSS) + 1, y]);
      y += room(node);
    }
  });
  return { at, width: rows.length * (WIDTH + ACROSS) - ACROSS + 2, height };
}

function Picture({ label, nodes, edges, layers, about }: Drawn) {
  const { rows, chains } = routed(layers, edges);
  const { at, width, height } = placed(rows, nodes.length);
  return (
    <div class="graph" role="region" aria-label={label} tabIndex={0}>
      <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="group" aria-label={label}>
        {chains.map((chain, number) =>
          chain[0] === chain.at(-1) ? null : (
            <g key={number} class={about[number]!.isLit ? "edge lit" : "edge"}>
              <title>{plain(about[number]!.text)}</title>
              <path class="line" d={line(chain, at, nodes.length)} />
              <path class="head" d={head(at.get(chain.at(-1)!)!)} />
            </g>
          ),
        )}
        {nodes.map((node, number) => (
          <Box key={number} node={node} at={at.get(number)!} />
        ))}
      </svg>
    </div>
  );
}

/** From the right side of the first node to the left side of the last one, straight through the places in between. */
function line(chain: number[], at: Map<number, Point>, nodes: number): string {
  const middle = (node: number) => at.get(node)![1] + (node < nodes ? HEIGHT : LANE) / 2;
  let [x, y] = [at.get(chain[0]!)![0] + WIDTH, middle(chain[0]!)];
  let path = `M${x} ${y}`;
  chain.slice(1).forEach((node, step) => {
    const [toX, toY] = [at.get(node)![0] - (step === chain.length - 2 ? HEAD : 0), middle(node)];
    const bend = Math.max(ACROSS / 2, Math.abs(toX - x) / 2);
    path += `C${x + bend} ${y} ${toX - bend} ${toY} ${toX} ${toY}`;
    [x, y] = [toX + WIDTH, toY];
    if (step < chain.length - 2) path += `H${x}`;
  });
  return path;
}

const head = ([x, y]: Point): string => `M${x} ${y + HEIGHT / 2}l${-HEAD} -4v8z`;

/** What is visible, for those who name it aloud, and the whole name. */
const nameOf = ({ name, note }: Node): string =>
  name === shortened(name) ? `${name}: ${note}` : `${shortened(name)} ${note} (${name})`;

function Box({ node, at: [x, y] }: { node: Node; at: [number, number] }) {
  let left = 0;
  const inside = (
    <g class={`tone-${node.tone.toLowerCase()}`} transform={`translate(${x} ${y})`}>
      <title>{plain(`${node.name}: ${node.note}`)}</title>
      <rect class="box" width={WIDTH - 2} height={HEIGHT - 2} rx="6" />
      <text x="10" y="21">
        {plain(shortened(node.name))}
      </text>{" "}
      <text class="note" x="10" y="39">
        {plain(node.note)}
      </text>
      {node.bar.map(([tone, share]) => {
        const from = left;
        left += share * (WIDTH - 22);
        return (
          <rect key={tone} class={`part tone-${tone.toLowerCase()}`} x={10 + from} y="46" width={left - from} height="5" />
        );
      })}
    </g>
  );
  return node.href === null ? inside : (
    <a href={node.href} aria-label={plain(nameOf(node))}>
      {inside}
    </a>
  );
}

// --- templates -------------------------------------------------------------------------------------------------------

export function Graph(props: { id: number; templates: TemplateProgress[]; every: number }) {
  return (
    <Section title="Graph">
      <Templates {...props} />
    </Section>
  );
}

function Templates({ id, templates, every }: { id: number; templates: TemplateProgress[]; every: number }) {
  const live = useLive<TemplateGraph>(`/workflows/${id}/template_graph`, {}, () => every);
  return (
    <Shown live={live}>
      {(found) => {
        if (found.templates.length === 0) return <p class="quiet">It has no tasks yet.</p>;
        if (found.templates.length > NODES_MAX) {
          return (
            <p>
              {numberOf(found.templates.length, "template")} are too many to draw; up to {NODES_MAX} are. <i>All tasks</i>{" "}
              shows them as squares.
            </p>
          );
        }
        return (
          <>
            <Picture label="Dependencies between templates" {...ofTemplates(id, found, templates)} />
            <p class="quiet">
              An arrow leads from a template to those that depend on it; red where failed tasks keep others from running.
              Choose a template to see its tasks.
            </p>
          </>
        );
      }}
    </Shown>
  );
}

function ofTemplates(id: number, found: TemplateGraph, templates: TemplateProgress[]): Omit<Drawn, "label"> {
  const index = new Map(found.templates.map((name, number) => [name, number]));
  const groups = found.templates.map((name) => grouped(templates.find((one) => one.name === name)?.counts ?? {}));
  const edges = found.edges.map((edge): Edge => [index.get(edge.upstream)!, index.get(edge.downstream)!]);
  const onItself = new Set(edges.flatMap(([from, to]) => (from === to ? [from] : [])));
  return {
    nodes: found.templates.map((name, number) => ({
      name: onItself.has(number) ? `↻ ${name}` : name,
      note: noteOf(groups[number]!),
      tone: toneOf(groups[number]!),
      href: address(`/workflows/${id}`, { template: name }),
      bar: barOf(groups[number]!),
    })),
    edges,
    layers: layersOf(found.templates.length, edges),
    about: found.edges.map((edge, number) => ({
      text: `${numberOf(edge.tasks, "task")} of ${edge.downstream} after ${edge.upstream}`,
      isLit: groups[edges[number]![0]]!.FATAL > 0,
    })),
  };
}

/** The most important groups and the total, short enough for a box. */
function noteOf(groups: Groups): string {
  const of = total(groups);
  for (const group of ["FATAL", "RUNNING"] as const) {
    if (!groups[group]) continue;
    const some = `${count(groups[group])} ${group.toLowerCase()}`;
    const text = `${some}, ${count(groups.DONE)} done of ${count(of)}`;
    return text.length <= NOTE_CHARACTERS_MAX ? text : `${some}, ${doneShare(groups, of)} done`;
  }
  return `${count(groups.DONE)} done of ${count(of)}`;
}

function toneOf(groups: Groups): string {
  if (groups.FATAL) return "FATAL";
  if (groups.RUNNING) return "RUNNING";
  return groups.PENDING ? "PENDING" : "DONE";
}

function barOf(groups: Groups): [string, number][] {
  const of = Math.max(1, total(groups));
  return BAR_GROUPS.flatMap((group): [string, number][] => (groups[group] ? [[group, groups[group] / of]] : []));
}

// --- tasks -----------------------------------------------------------------------------------------------------------

/** The neighbourhood of a task, as a picture. */
export function Neighbourhood({ id, every }: { id: number; every: number }) {
  const live = useLive<TaskGraph>(`/tasks/${id}/graph`, { steps: STEPS }, () => every);
  if (live.value && live.value.tasks.length < 2) return null;
  return (
    <Part title="Dependencies" note={`up to ${STEPS} steps away`}>
      <Shown live={live}>{(found) => <Picture label="Dependencies of this task" {...ofTasks(found)} />}</Shown>
    </Part>
  );
}

function ofTasks(found: TaskGraph): Omit<Drawn, "label"> {
  const index = new Map(found.tasks.map((task, number) => [task.task_id, number]));
  const statusOf = (status: string) => (TASK_STATUS[status] ?? status).replaceAll("_", " ");
  const edges = found.edges.map((edge): Edge => [index.get(edge.upstream)!, index.get(edge.downstream)!]);
  return {
    nodes: found.tasks.map((task) => ({
      name: task.name,
      note: `${statusOf(task.status)}${task.more ? `, ${count(task.more)} more beside` : ""}`,
      tone: TASK_GROUP[task.status] ?? "PENDING",
      href: task.step !== 0 && hasTask(task.task_id) ? address(`/tasks/${task.task_id}`) : null,
      bar: [],
    })),
    edges,
    layers: found.tasks.map((task) => task.step),
    about: edges.map(([from, to]) => ({
      text: `${found.tasks[to]!.name} after ${found.tasks[from]!.name}`,
      isLit: TASK_GROUP[found.tasks[from]!.status] === "FATAL",
    })),
  };
}
