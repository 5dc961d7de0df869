// The page: which view is shown, and whether the server is there.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { keyOf, maySteer, shareKey, takeKey } from "./access";
import { Command } from "./command";
import { type Arrival, Arrived, finishLogin, Login } from "./login";
import { useAwaySince, useIsShutOut } from "./api";
import { Time, Title } from "./parts";
import { usePlace } from "./place";
import { address } from "./query";
import { recorded } from "./recorded";
import { Task } from "./task";
import { localTime, utcTime } from "./words";
import { Workflow } from "./workflow";
import { Workflows } from "./workflows";

function Page({ arrival }: { arrival: Arrival | null }) {
  const [isArriving, setArriving] = useState(arrival !== null && arrival.kind !== "page");
  useEffect(() => {
    const leave = () => setArriving(false);
    window.addEventListener("hashchange", leave);
    return () => window.removeEventListener("hashchange", leave);
  }, []);
  return (
    <>
      <header>
        <a class="name" href={address("/")}>
          Jobmon
        </a>
        {recorded ? (
          <small>
            Report of <Time at={recorded.made_at} />, Jobmon {recorded.version}
          </small>
        ) : (
          <>
            {keyOf() && !maySteer() && <small>read-only</small>}
            <Away />
          </>
        )}
      </header>
      <main>
        {isArriving ? <Arrived arrival={arrival!} /> : <View />}
      </main>
    </>
  );
}

function Away() {
  const since = useAwaySince();
  const isShutOut = useIsShutOut();
  return (
    <p role="status" class="away">
      {isShutOut && (
        <>
          The server was restarted, or the link was revoked: the figures stay as they are. Open the page again with{" "}
          <Command text="jobmon ui" /> <Login otherwise="" />
        </>
      )}
      {since && !isShutOut && (
        <>
          Server away since <time title={utcTime(since)}>{localTime(since)}</time>; the figures may be old. The page
          recovers when the server is back. If it exited because it was idle, this restarts it:{" "}
          <Command text="jobmon ui" />
        </>
      )}
    </p>
  );
}

function View() {
  const { path, query } = usePlace();
  const [kind, number] = path;
  const id = number !== undefined && /^\d{1,15}$/.test(number) ? Number(number) : null;
  if (kind === undefined && recorded) return <Workflow key={recorded.workflow_id} id={recorded.workflow_id} query={query} />;
  if (kind === undefined) return <Workflows query={query} />;
  if (kind === "workflows" && id !== null) return <Workflow key={id} id={id} query={query} />;
  if (kind === "tasks" && id !== null) return <Task key={id} id={id} />;
  return (
    <>
      <Title text="Nothing is here" />
      <p>
        There is no such view. <a href={address("/")}>Workflows</a>
      </p>
    </>
  );
}

let arrival: Arrival | null = null;
if (!recorded) {
  arrival = await finishLogin();
  await takeKey();
  window.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#key=")) void takeKey().then(() => location.reload());
  });
  await shareKey();
}
render(<Page arrival={arrival} />, document.body);
