// Questions and places as text: the part of an address behind `?`, and that behind `#`.

export type Query = Record<string, string | number | boolean | string[] | number[] | null | undefined>;

/** A number in the address; one that is none is sent as it is, so that the server refuses it. */
export const numberIn = (text: string): number | null => (text === "" ? null : Number(text));

/** What is empty is left out. */
export function queryText(query: Query): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") words.append(name, String(one));
    }
  }
  const text = words.toString();
  return text && `?${text}`;
}

export interface Place {
  path: string[];
  query: Record<string, string>;
}

export function parsed(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  return {
    path: path.split("/").filter(Boolean),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

export const address = (path: string, query: Query = {}): string => `#${path}${queryText(query)}`;
