// What a program wrote for a terminal, as text with colours: progress bars are folded, control characters shown.

import { plain } from "./words";

export interface Piece {
  text: string;
  /** Names of its colour and weight; "" for plain text. */
  style: string;
}

const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
/** ESC [ ... letter: `m` sets colours, the others move a cursor that is not here. */
const SEQUENCE = /\x1b\[([0-9;:?]*)[ -/]*([@-~])/;
const LINKS = /\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g;

/** Keep of each line what a terminal shows in the end: `\r` returns to its beginning. */
export function folded(text: string): string {
  return text.replace(/\r\n/g, "\n").replace(/[^\n]*\r(?=[^\n\r])/g, "").replace(/\r+(?=\n|$)/g, "");
}

/** Split a text at its colours. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let rest = folded(text).replace(LINKS, "");
  let style = new Set<string>();
  const add = (part: string) => {
    if (part) found.push({ text: plain(part), style: [...style].join(" ") });
  };
  for (let match = SEQUENCE.exec(rest); match; match = SEQUENCE.exec(rest)) {
    add(rest.slice(0, match.index));
    if (match[2] === "m") style = styled(style, match[1] ?? "");
    rest = rest.slice(match.index + match[0].length);
  }
  add(rest);
  return found;
}

function styled(before: Set<string>, codes: string): Set<string> {
  let style = new Set(before);
  const numbers = codes.split(/[;:]/).map(Number);
  for (let at = 0; at < numbers.length; at += 1) {
    const code = numbers[at]!;
    if (code === 0) style = new Set();
    else if (code === 1) style.add("bold");
    else if (code === 22) style.delete("bold");
    else if (code === 38 || code === 48) at += numbers[at + 1] === 5 ? 2 : 4; // one of 256 or more colours: left out
    else if ((code >= 30 && code <= 39) || (code >= 90 && code <= 97)) {
      style = new Set([...style].filter((name) => !name.startsWith("ink-")));
      if (code !== 39) style.add(`ink-${COLOURS[code % 10]}`);
    }
  }
  return style;
}

/** Split a text at a word, in upper or lower case; the parts at odd places are the word. */
export function splitAt(text: string, word: string): string[] {
  if (!word) return [text];
  return text.split(new RegExp(`(${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")})`, "gi"));
}
