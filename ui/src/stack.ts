// Stacked areas of a chart. Pure.

export interface Series {
  running: number[];
}

/** The largest sum of all series, and in which tile. */
export function peakOf(series: Series[]): { number: number; tile: number } {
  const sums = (series[0]?.running ?? []).map((_, tile) => series.reduce((sum, one) => sum + one.running[tile]!, 0));
  const number = Math.max(0, ...sums);
  return { number, tile: Math.max(0, sums.indexOf(number)) };
}

/** The outline of each series, stacked on the ones before it, as steps: the points of an SVG polygon. */
export function areas(series: Series[], width: number, height: number): string[] {
  const tiles = series[0]?.running.length ?? 0;
  const { number: peak } = peakOf(series);
  const y = (value: number) => (height - (peak ? (value / peak) * height : 0)).toFixed(1);
  const x = (tile: number) => ((tile / tiles) * width).toFixed(1);
  const below: number[] = new Array<number>(tiles).fill(0);
  return series.map((one) => {
    const above = below.map((value, tile) => value + one.running[tile]!);
    const up = above.flatMap((value, tile) => [`${x(tile)},${y(value)}`, `${x(tile + 1)},${y(value)}`]);
    const down = below.flatMap((value, tile) => [`${x(tile)},${y(value)}`, `${x(tile + 1)},${y(value)}`]).reverse();
    above.forEach((value, tile) => (below[tile] = value));
    return [...up, ...down].join(" ");
  });
}
