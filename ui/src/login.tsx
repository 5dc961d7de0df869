// Logging in through the server's provider. The secret of a login stays in this tab: nobody else can finish it.

import { useEffect, useState } from "preact/hooks";
import { ROOT, keepSession } from "./access";
import { Command } from "./command";
import { plain } from "./words";
import type { Health, LoginStart, PageSession, Problem } from "./wire";

/** A login that was started in this tab. */
interface Pending {
  secret: string;
  state: string;
  /** What was shown, such as "#/workflows/5". */
  place: string;
}

/** What the provider has led back to. */
export type Arrival = { kind: "page" } | { kind: "code"; code: string } | { kind: "failed"; message: string };

const PENDING = "jobmon.login";
const SECRET_BYTES = 32;
const OIDC = "oidc";
/** The state of a login that `jobmon login` started begins with it. */
const FOR_COMMAND_LINE = "token.";
/** Anything else in an address, which anybody may have written, is not shown as something to paste into a terminal. */
const CODE = /^[\w.~+/=-]{8,4096}$/;
const ELSEWHERE = "This login was started in another tab, or at another address of this server. Log in again here.";

const hex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function posted<T>(path: string, message: object): Promise<T> {
  let answer: Response;
  let body: unknown;
  try {
    const headers = { "Content-Type": "application/json" };
    answer = await fetch(ROOT + path, { method: "POST", headers, body: JSON.stringify(message), cache: "no-store" });
    body = await answer.json();
  } catch {
    throw new Error("The server does not respond. Log in again later.");
  }
  if (!answer.ok) throw new Error((body as Partial<Problem>).message ?? `The server answered ${answer.status}.`);
  return body as T;
}

async function startLogin(): Promise<void> {
  if (!globalThis.crypto?.subtle) throw new Error("Logging in needs https.");
  const secret = hex(crypto.getRandomValues(new Uint8Array(SECRET_BYTES)));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(secret));
  const challenge = hex(new Uint8Array(digest));
  const { url, state } = await posted<LoginStart>("/login/start", { purpose: "page", challenge });
  const pending: Pending = { secret, state, place: location.hash || "#/" };
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  location.assign(url);
}

/** Finish a login, if the provider has led here; null: it has not. */
export async function finishLogin(): Promise<Arrival | null> {
  const given = new URLSearchParams(location.search);
  const state = given.get("state");
  const error = given.get("error");
  if (state === null && error === null) return null;
  const code = given.get("code");
  const stored = sessionStorage.getItem(PENDING);
  const pending = stored === null ? null : (JSON.parse(stored) as Pending);
  const isOurs = pending !== null && (pending.state === state || state === null);
  history.replaceState(null, "", location.pathname + (isOurs ? pending.place : "#/"));
  if (code === null || state === null) return { kind: "failed", message: given.get("error_description") ?? error ?? "There is no code." };
  if (state.startsWith(FOR_COMMAND_LINE)) {
    return CODE.test(code) ? { kind: "code", code } : { kind: "failed", message: "This is not a code of a login." };
  }
  if (!isOurs) return { kind: "failed", message: ELSEWHERE };
  sessionStorage.removeItem(PENDING);
  try {
    keepSession(await posted<PageSession>("/login/page", { state, code, secret: pending.secret }));
  } catch (failure) {
    return { kind: "failed", message: (failure as Error).message };
  }
  return { kind: "page" };
}

let offer: Promise<boolean> | null = null;

/** Whether one can log in here; asks the server once. */
function offersLogin(): Promise<boolean> {
  offer ??= fetch(`${ROOT}/health`, { cache: "no-store" })
    .then(async (answer) => answer.ok && ((await answer.json()) as Health).login === OIDC)
    .catch(() => {
      offer = null;
      return false;
    });
  return offer;
}

/** A button to log in; `otherwise` if this server has no login. */
export function Login({ otherwise }: { otherwise: string }) {
  const [isOffered, setOffered] = useState<boolean | null>(null);
  const [isStarting, setStarting] = useState(false);
  const [message, setMessage] = useState("");
  useEffect(() => {
    let isShown = true;
    void offersLogin().then((found) => isShown && setOffered(found));
    return () => void (isShown = false);
  }, []);
  async function start(): Promise<void> {
    setStarting(true);
    setMessage("");
    try {
      await startLogin();
    } catch (failed) {
      setMessage((failed as Error).message);
      setStarting(false);
    }
  }
  if (isOffered === null) return null;
  if (!isOffered) return <>{otherwise}</>;
  return (
    <>
      {message && <>{plain(message)} </>}
      <button type="button" disabled={isStarting} onClick={() => void start()}>
        Log in
      </button>
    </>
  );
}

/** What is shown after a login that was not for this page, or that failed. */
export function Arrived({ arrival }: { arrival: Arrival }) {
  if (arrival.kind === "code") {
    return (
      <>
        <h1>Logged in</h1>
        <p>
          If you have just started <code>jobmon login</code> yourself, paste this code into that terminal:{" "}
          <Command text={arrival.code} />
        </p>
        <p>Give it to nobody: who has it acts in your name.</p>
      </>
    );
  }
  return (
    <p class="problem" role="alert">
      {arrival.kind === "failed" && plain(arrival.message)} <Login otherwise="" />
    </p>
  );
}
