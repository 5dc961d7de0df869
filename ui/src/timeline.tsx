// When attempts ran: how many at once, by template or host.

import { useState } from "preact/hooks";
import { useLive } from "./api";
import { CriticalPath } from "./critical";
import { Choice, Section, Shown, SoFar, Table, Time } from "./parts";
import { recorded } from "./recorded";
import { type Timeline as Answer, type TimelineSeries } from "./wire";
import { areas, peakOf } from "./stack";
import { count, duration, plain } from "./words";

const TILES = 120;
const HEIGHT = 200;
const WIDTH = 1000;

export function Timeline({ id, every }: { id: number; every: number }) {
  return (
    <Section title="Timeline">
      <Chart id={id} every={every} />
    </Section>
  );
}

function Chart({ id, every }: { id: number; every: number }) {
  const [by, setBy] = useState<"template" | "host">("template");
  const query = { by, width: TILES, partial: true };
  const live = useLive<Answer>(`/workflows/${id}/timeline`, query, ({ share }) => (share < 1 ? 0 : every));
  return (
    <>
      {!recorded && (
        <div class="filters">
          <Choice
            label="By"
            value={by}
            choices={[
              ["template", "template"],
              ["host", "host"],
            ]}
            onValue={(value) => setBy(value === "host" ? "host" : "template")}
          />
        </div>
      )}
      <Shown live={live}>
        {(found) =>
          found.start === null ? (
            <p class="quiet">{found.share < 1 ? "Reading …" : "No attempt has started yet."}</p>
          ) : (
            <>
              <SoFar share={found.share} />
              <Drawn found={found} />
              <CriticalPath
                id={id}
                every={every}
                start={Date.parse(found.start)}
                end={endOf(found)}
                seriesOf={(template) => (by === "template" ? seriesOf(found, template) : 0)}
              />
            </>
          )
        }
      </Shown>
    </>
  );
}

const endOf = ({ start, series, tile_seconds }: Answer): number =>
  Date.parse(start!) + (series[0]?.running.length ?? 0) * tile_seconds * 1000;

/** The series of a template; those that ran least are combined in the last one. */
function seriesOf({ series }: Answer, template: string): number {
  const number = series.findIndex((one) => one.name === template);
  return number < 0 ? series.length - 1 : number;
}

/** A mean number of attempts. */
const attemptsText = (mean: number): string => (mean < 10 ? mean.toFixed(1) : count(Math.round(mean)));

function Drawn({ found }: { found: Answer }) {
  const { series, tile_seconds } = found;
  const peak = peakOf(series);
  const tiles = series[0]?.running.length ?? 0;
  const timeOf = (tile: number) => new Date(Date.parse(found.start!) + tile * tile_seconds * 1000).toISOString();
  const most = attemptsText(peak.number);
  return (
    <>
      <p>
        At most {most} attempts ran at once, around <Time at={timeOf(peak.tile)} />. Each step is the mean of{" "}
        {duration(tile_seconds)}.
      </p>
      <svg
        class="chart"
        role="img"
        aria-label={`Running attempts over time: at most ${most}`}
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
      >
        {areas(series, WIDTH, HEIGHT).map((points, number) => (
          <polygon key={series[number]!.name} class={`series-${number}`} points={points}>
            <title>{plain(series[number]!.name || "unknown host")}</title>
          </polygon>
        ))}
      </svg>
      <p class="axis quiet">
        <Time at={timeOf(0)} />
        <Time at={timeOf(tiles)} />
      </p>
      <Table<TimelineSeries>
        label="Running attempts"
        rows={series}
        id={(row) => row.name}
        columns={[
          {
            head: "Name",
            cell: (row) => (
              <span>
                <i class={`key series-${series.indexOf(row)}`} /> {plain(row.name || "unknown host")}
              </span>
            ),
          },
          { head: "Most at once", cell: (row) => attemptsText(peakOf([row]).number), isNumber: true },
          { head: "Ended", cell: (row) => count(row.ended.reduce((sum, one) => sum + one, 0)), isNumber: true },
          {
            head: "Time in all",
            cell: (row) => duration(row.running.reduce((sum, one) => sum + one, 0) * tile_seconds),
            isNumber: true,
          },
        ]}
      />
    </>
  );
}
