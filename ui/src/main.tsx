// The page: which view is shown, and whether the server is there.

import { render } from "preact";
import { shareKey, takeKey } from "./access";
import { useAwaySince, useIsShutOut } from "./api";
import { Title } from "./parts";
import { usePlace } from "./place";
import { address } from "./query";
import { Task } from "./task";
import { localTime, utcTime } from "./words";
import { Workflow } from "./workflow";
import { Workflows } from "./workflows";

function Page() {
  return (
    <>
      <header>
        <a class="name" href={address("/")}>
          Jobmon
        </a>
        <Away />
      </header>
      <main>
        <View />
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
          The server was started again, or the link was revoked: what is shown stays as it is. Open the page anew with{" "}
          <code>jobmon ui</code>.
        </>
      )}
      {since && !isShutOut && (
        <>
          Server away since <time title={utcTime(since)}>{localTime(since)}</time>; what is shown may be old. This page
          goes on by itself when it is back. If it ended for want of work, <code>jobmon ui</code> starts it again.
        </>
      )}
    </p>
  );
}

function View() {
  const { path, query } = usePlace();
  const [kind, number] = path;
  const id = number !== undefined && /^\d{1,15}$/.test(number) ? Number(number) : null;
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

await takeKey();
window.addEventListener("hashchange", () => {
  if (location.hash.startsWith("#key=")) void takeKey().then(() => location.reload());
});
await shareKey();
render(<Page />, document.body);
