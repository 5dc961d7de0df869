// Numbers, times and names as people read them.

import { STARTER_BYTES_MAX, TASK_GROUP, TASK_GROUPS, type Group } from "./wire";

const numbers = new Intl.NumberFormat("en-US");
const shares = new Intl.NumberFormat("en-US", { style: "percent", maximumFractionDigits: 1 });
/** As memory is asked for. */
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const count = (value: number): string => numbers.format(value);
export const share = (value: number): string => shares.format(value);
export const numberOf = (value: number, what: string): string => `${count(value)} ${what}${value === 1 ? "" : "s"}`;

/** 12 ms, 12.3 s, 1:02:05, 3 d 4:05:06. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (value: number) => String(value).padStart(2, "0");
  const days = Math.floor(whole / 86_400);
  const clock = `${Math.floor((whole % 86_400) / 3600)}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
  return days ? `${days} d ${clock}` : `${clock} h`;
}

/** 999 B, 1.2 MiB. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit ? size.toFixed(1) : size} ${UNITS[unit]}`;
}

/** The peak memory of a command: of little ones only an upper bound is known, the size of what started them. */
export const peak = (value: number | null | undefined): string =>
  typeof value === "number" && value < STARTER_BYTES_MAX ? `at most ${bytes(value)}` : bytes(value);

/** The time of day if it was today, else the date too. */
export function localTime(moment: Date, now: Date = new Date()): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const clock = `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
  if (moment.toDateString() === now.toDateString()) return clock;
  const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
  return `${day} ${clock.slice(0, 5)}`;
}

export const utcTime = (moment: Date): string => `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** Seconds between two times of the server; undefined where one is not there yet. */
export function between(from: string | null | undefined, to: string | null | undefined): number | undefined {
  return from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : undefined;
}

export type Groups = Record<Group, number>;

/** Counts by status as counts by what people want to know. */
export function grouped(counts: Record<string, number>): Groups {
  const found = Object.fromEntries(TASK_GROUPS.map((group) => [group, 0])) as Groups;
  for (const [status, number] of Object.entries(counts)) found[TASK_GROUP[status] ?? "PENDING"] += number;
  return found;
}

/** "3 PENDING, 0 RUNNING, ...": all groups, but skipped tasks only where there are any. */
export const groupsText = (groups: Groups): string =>
  TASK_GROUPS.filter((group) => group !== "SKIPPED" || groups.SKIPPED)
    .map((group) => `${count(groups[group])} ${group}`)
    .join(", ");

export const total = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

/** Counts of several, added up. */
export function added(several: Record<string, number>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const counts of several) {
    for (const [status, number] of Object.entries(counts)) sums[status] = (sums[status] ?? 0) + number;
  }
  return sums;
}

/** Make control characters visible; ends of lines and tabs stay. */
export function plain(text: string): string {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (sign) => {
    const code = sign.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : "\ufffd";
  });
}

/**
 * Split a sentence so that every second part is a command to type.
 *
 * Only commands that end with an ID: others have a placeholder, or a name that somebody else may have chosen.
 */
export const splitAtCommands = (text: string): string[] => text.split(/(?<=: )(jobmon(?: [a-z]+)+ \d+)(?=[.)]|$)/);

/** What a search box holds, as the server takes it: part of a name, unless it says where anything may stand. */
export const wanted = (text: string): string => (text === "" || text.includes("*") ? text : `*${text}*`);

/** How much a mean grew per second within the last samples; undefined: nothing can be said yet. */
export class Rate {
  private readonly samples: [number, number][] = [];

  constructor(private readonly seconds: number) {}

  /** Add what was counted at a time (seconds) and return the growth per second. */
  add(at: number, value: number): number | undefined {
    this.samples.push([at, value]);
    while (this.samples.length > 2 && at - this.samples[1]![0] >= this.seconds) this.samples.shift();
    const [began, first] = this.samples[0]!;
    return at - began >= 1 ? Math.max(0, (value - first) / (at - began)) : undefined;
  }
}

/** 3.2 per second, or per minute or hour where that is a better number. */
export function rateText(perSecond: number): string {
  for (const [unit, factor] of [["s", 1], ["min", 60]] as const) {
    if (perSecond * factor >= 1) return `${(perSecond * factor).toFixed(perSecond * factor < 100 ? 1 : 0)} per ${unit}`;
  }
  return `${(perSecond * 3600).toFixed(1)} per h`;
}
