// Every task of a workflow as a square, by template: bad nodes and bad arguments stand out.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { maySteer } from "./access";
import { SetActions } from "./set_actions";
import { type QueryTo, read } from "./api";
import { draw, Layout, Tasks } from "./grid";
import { COSTLY_EVERY } from "./pace";
import { Section } from "./parts";
import { address } from "./query";
import { hasTask, recorded } from "./recorded";
import { type Matrix as Answer, REMOVED, TASK_GROUP, TASK_STATUS, TASKS_UPDATED_MAX } from "./wire";
import { count, grouped, groupsText, numberOf, plain } from "./words";

/** The side of a square has at most so many pixels. */
const SIDE_MAX = 24;
const HEIGHT = 420;

export function Matrix({ id, every }: { id: number; every: number }) {
  return (
    <Section title="All tasks">
      <Squares id={id} every={every} />
    </Section>
  );
}

function Squares({ id, every }: { id: number; every: number }) {
  const tasks = useTasks(id, every);
  const [zoom, setZoom] = useState(0);
  const [under, setUnder] = useState("");
  const [range, setRange] = useState<Range | null>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, [tasks === null]);
  const all = tasks?.value;
  const side = all && width ? sideOf(all.total, width, zoom) : 1;
  const layout = all && width ? new Layout(all.blocks, Math.max(1, Math.floor(width / side))) : null;
  const drawn = useRef<Canvas | null>(null);
  const paint = () => {
    if (!all || !layout || !canvas.current || !scroller.current) return;
    const height = Math.min(HEIGHT, layout.rows * side);
    drawn.current = canvasOf(canvas.current, width, height, drawn.current);
    if (!drawn.current) return;
    const { context, image, colours } = drawn.current;
    const scrolled = Math.floor(scroller.current.scrollTop);
    const view = { side, width, height, scrolled, range: range && sorted(range) };
    draw(new Uint32Array(image.data.buffer), all.statuses, layout, colours, view);
    context.putImageData(image, 0, 0);
  };
  useEffect(paint);
  const words = useMemo(() => all && summary(all), [tasks]);
  if (!all) return <p class="quiet">Reading …</p>;
  if (!all.count) return <p class="quiet">It has no tasks yet.</p>;

  function placeAt(event: MouseEvent): number | undefined {
    if (!scroller.current || !layout) return undefined;
    const box = scroller.current.getBoundingClientRect();
    const row = layout.row(Math.floor((event.clientY - box.top + scroller.current.scrollTop) / side));
    const column = Math.floor((event.clientX - box.left) / side);
    return row && column >= 0 && column < row.count ? row.start + column : undefined;
  }
  const templateAt = (place: number) => all.blocks.findLast((block) => block.start <= place)!.template;
  const [first, last] = range ? sorted(range) : [0, -1];
  const selected = last - first + 1;
  const statusAt = (place: number) => TASK_STATUS[String.fromCharCode(all.statuses[place]!)] ?? "?";
  return (
    <>
      <div class="actions" role="group" aria-label="Size of the squares">
        <button type="button" onClick={() => setZoom(zoom + 1)} disabled={side >= SIDE_MAX}>
          Larger
        </button>
        <button type="button" onClick={() => setZoom(zoom - 1)} disabled={zoom <= 0}>
          Smaller
        </button>
        <small>
          {all.count < all.total
            ? `Reading … ${count(all.count)} of ${numberOf(all.total, "task")}`
            : `${numberOf(all.count, "task")} of ${numberOf(all.blocks.length, "template")}, by template and ID`}
        </small>
      </div>
      {range && (
        <div class="actions">
          <button type="button" onClick={() => setRange(null)}>
            Select none
          </button>
          {selected > TASKS_UPDATED_MAX ? (
            <small>
              {numberOf(selected, "square")} selected; actions apply to at most {count(TASKS_UPDATED_MAX)} at once.
            </small>
          ) : (
            <SetActions
              workflowId={id}
              set={{ task_ids: Array.from({ length: selected }, (_, number) => all.idAt(first + number)) }}
              of={numberOf(selected, "selected square")}
            />
          )}
        </div>
      )}
      <div
        ref={scroller}
        class="matrix"
        tabIndex={0}
        role="region"
        aria-label="Squares"
        style={{ height: `${Math.min(HEIGHT, (layout?.rows ?? 1) * side)}px` }}
        onScroll={paint}
        onMouseMove={(event) => {
          const place = placeAt(event);
          const name = place === undefined ? "" : `task ${all.idAt(place)}, ${templateAt(place)}: ${statusAt(place)}`;
          setUnder(name.replaceAll("_", " "));
        }}
        onClick={(event) => {
          const place = placeAt(event);
          if (place !== undefined && event.shiftKey && maySteer()) {
            setRange({ anchor: range?.anchor ?? place, end: place });
            return;
          }
          if (place !== undefined && hasTask(all.idAt(place))) location.hash = address(`/tasks/${all.idAt(place)}`);
        }}
      >
        <div style={{ height: `${(layout?.rows ?? 1) * side}px` }}>
          <canvas ref={canvas} role="img" aria-label={words ?? ""} />
        </div>
      </div>
      <p class="quiet under">{plain(under) || hint()}</p>
    </>
  );
}

function hint(): string {
  const select = maySteer() ? " Click with Shift held down on the first and the last of several to select them." : "";
  return `Point at a square to see which task it is${recorded ? "" : "; click to open it"}.${select}`;
}

/** The places from a square to another one, in either direction. */
interface Range {
  anchor: number;
  end: number;
}

const sorted = ({ anchor, end }: Range): [number, number] => [Math.min(anchor, end), Math.max(anchor, end)];

/** All tasks, kept up to date; a new object after each change. */
function useTasks(id: number, every: number): { value: Tasks } | null {
  const [found, setFound] = useState<{ value: Tasks } | null>(null);
  const newestEvery = useRef(every);
  newestEvery.current = every;
  useEffect(() => {
    const ending = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    let tasks: Tasks | null = null;
    let snapshot = 0;
    const ask = (query: QueryTo<Answer>) => read<Answer>(`/workflows/${id}/matrix`, query, ending.signal);

    async function readAll() {
      const pages = [await ask({})];
      snapshot = pages[0]!.snapshot; // of the later pages something may be told twice
      for (let page = pages[0]!; page.is_cut; pages.push(page)) {
        if (!tasks) setFound({ value: new Tasks(pages) }); // what there is, until the rest comes
        const run = page.runs.at(-1)!;
        page = await ask({ after: run.first + run.count - 1 });
      }
      tasks = new Tasks(pages);
      setFound({ value: tasks });
    }

    async function refresh() {
      try {
        if (!tasks) {
          await readAll();
        } else if (!document.hidden && !recorded) {
          const changes = await ask({ since: snapshot });
          if (!tasks.change(changes, REMOVED)) await readAll();
          else if (changes.statuses) setFound({ value: tasks });
          snapshot = Math.max(snapshot, changes.snapshot);
        }
      } catch {
        // the page says by itself that the server is away
      }
      if (!ending.signal.aborted) timer = setTimeout(() => void refresh(), Math.min(newestEvery.current, COSTLY_EVERY));
    }
    void refresh();
    return () => {
      ending.abort();
      clearTimeout(timer);
    };
  }, [id]);
  return found;
}

/** The side of a square: all fit into the height, if that is possible. */
function sideOf(tasks: number, width: number, zoom: number): number {
  const fitting = Math.floor(Math.sqrt((width * HEIGHT) / tasks));
  return Math.min(SIDE_MAX, Math.max(1, Math.min(fitting, SIDE_MAX / 2)) * 2 ** zoom);
}

function summary(tasks: Tasks): string {
  const numbers = new Uint32Array(256);
  for (const letter of tasks.statuses) numbers[letter]! += 1;
  const counts: Record<string, number> = {};
  numbers.forEach((number, letter) => {
    if (number) counts[String.fromCharCode(letter)] = number;
  });
  return groupsText(grouped(counts));
}

/** The image of a canvas, and the colours by letter; what was drawn before is drawn over. */
interface Canvas {
  context: CanvasRenderingContext2D;
  image: ImageData;
  colours: Uint32Array;
  isDark: boolean;
}

const darkness = matchMedia("(prefers-color-scheme: dark)");

/** The canvas in a size and with the colours of the theme; as it was, if both are. */
function canvasOf(element: HTMLCanvasElement, width: number, height: number, before: Canvas | null): Canvas | null {
  const isDark = darkness.matches;
  const fits = element.width === width && element.height === height;
  if (before?.context.canvas === element && fits && before.isDark === isDark) return before;
  if (!fits) [element.width, element.height] = [width, height];
  const context = element.getContext("2d");
  if (!context || !width || !height) return null;
  return { context, image: context.createImageData(width, height), colours: coloursOf(element), isDark };
}

/** Colours by letter, as the numbers that images hold. */
function coloursOf(element: Element): Uint32Array {
  const style = getComputedStyle(element);
  const colours = new Uint32Array(256);
  for (const letter of Object.keys(TASK_STATUS)) {
    const tone = style.getPropertyValue(`--${(TASK_GROUP[letter] ?? "PENDING").toLowerCase()}`).trim();
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(tone.slice(at, at + 2), 16));
    colours[letter.charCodeAt(0)] = ((255 << 24) | (blue! << 16) | (green! << 8) | red!) >>> 0;
  }
  return colours;
}
