// The key of this page: the code or key in the address's fragment is sent once, in exchange for one that expires with the
// server's process; a program that takes the server's port afterwards learns nothing of use. It is kept for this tab only.

import { recorded } from "./recorded";
import type { PageSession } from "./wire";

/** Relative to the page, which a proxy may serve below a path. */
export const ROOT = "api/v1";
const KEY = "jobmon.key";
const USER = "jobmon.user";
const STEERS = "jobmon.steers";
const RESUMES = "jobmon.resumes";
const CHANNEL = "jobmon.key";
/** Other tabs of this page have answered after this long, milliseconds. */
const OTHERS_MILLISECONDS = 150;

/** Whether this tab has a key, or knows that none is needed, which is then empty. */
const hasKey = (): boolean => sessionStorage.getItem(KEY) !== null;
export const keyOf = (): string => sessionStorage.getItem(KEY) ?? "";
/** Whether the server lets this page change workflows; a shared link only reads. */
export const maySteer = (): boolean => !recorded && sessionStorage.getItem(STEERS) === "yes";
/** Whether the server can start runs: only one that runs as its user. */
export const mayResume = (): boolean => maySteer() && sessionStorage.getItem(RESUMES) === "yes";
export const userOf = (): string => sessionStorage.getItem(USER) ?? "";

/** Take key and user out of the address bar, whenever they are there; leaves the place that is to be shown. */
export async function takeKey(): Promise<void> {
  const given = new URLSearchParams(location.hash.slice(1));
  const key = given.get("key");
  if (key === null) return;
  history.replaceState(null, "", `#${given.get("go") ?? "/"}`);
  sessionStorage.setItem(USER, given.get("user") ?? "");
  const session = key ? await exchanged(key) : null;
  keep(session?.key ?? "", session?.can_steer ?? false, session?.can_resume ?? false);
}

/** Keep the session of somebody who has logged in. */
export function keepSession(session: PageSession): void {
  sessionStorage.setItem(USER, session.user ?? "");
  keep(session.key, session.can_steer ?? false, session.can_resume ?? false);
}

function keep(key: string, steers: boolean, resumes: boolean): void {
  sessionStorage.setItem(KEY, key);
  sessionStorage.setItem(RESUMES, resumes ? "yes" : "no");
  sessionStorage.setItem(STEERS, steers ? "yes" : "no");
}

/** Return a session in exchange for the code or key of the link, or "" behind a proxy that authenticates the user; null if
 * the server accepts neither. */
async function exchanged(key: string): Promise<PageSession | null> {
  const shown: Record<string, string> = key ? { Authorization: `Bearer ${key}` } : {};
  const headers = { ...shown, "Content-Type": "application/json" };
  try {
    const response = await fetch(`${ROOT}/page/session`, { method: "POST", headers, body: "{}", cache: "no-store" });
    return response.ok ? ((await response.json()) as PageSession) : null;
  } catch {
    return null;
  }
}

/** Share the key among the tabs of this page: a link opened in a new tab asks those that are open. */
export async function shareKey(): Promise<void> {
  const channel = new BroadcastChannel(CHANNEL);
  await new Promise<void>((resolve) => {
    channel.onmessage = ({ data }: MessageEvent<{ key?: string; user?: string; steers?: boolean; resumes?: boolean }>) => {
      if (data.key === undefined) {
        if (hasKey()) channel.postMessage({ key: keyOf(), user: userOf(), steers: maySteer(), resumes: mayResume() });
      } else if (!hasKey()) {
        keep(data.key, data.steers ?? false, data.resumes ?? false);
        sessionStorage.setItem(USER, data.user ?? "");
        resolve();
      }
    };
    if (hasKey()) {
      resolve();
    } else {
      channel.postMessage({});
      setTimeout(resolve, OTHERS_MILLISECONDS);
    }
  });
  if (hasKey()) return;
  const session = await exchanged("");
  if (session !== null) keep(session.key, session.can_steer ?? false, session.can_resume ?? false);
}
