// Where one is: the part of the address behind `#`, such as `/workflows/5?status=FATAL`.

import { useEffect, useState } from "preact/hooks";
import { address, parsed, type Place, type Query } from "./query";

const CHANGED = "jobmon-place";

/** Go to a place without a new entry in the history, as when a search is being typed. */
export function replacePlace(path: string, query: Query): void {
  history.replaceState(null, "", address(path, query));
  window.dispatchEvent(new Event(CHANGED));
}

/** What the address asks now; a timer may have been set when it asked something else. */
export const queryNow = (): Query => parsed(location.hash).query;

export function usePlace(): Place {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const look = () => setHash(location.hash);
    for (const name of ["hashchange", CHANGED]) window.addEventListener(name, look);
    return () => {
      for (const name of ["hashchange", CHANGED]) window.removeEventListener(name, look);
    };
  }, []);
  return parsed(hash);
}
