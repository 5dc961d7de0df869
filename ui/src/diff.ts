// The difference of two texts, word by word. Pure.

export type Kind = "same" | "removed" | "added";

/** Longer texts are shown as a whole, removed and added: comparing them would take too long. */
const WORDS_MAX = 1_000;

const wordsOf = (text: string): string[] => text.match(/\s+|\S+/g) ?? [];

/** The parts of both texts in order. */
export function diff(from: string, to: string): [Kind, string][] {
  if (from === to) return from ? [["same", from]] : [];
  const [a, b] = [wordsOf(from), wordsOf(to)];
  if (a.length > WORDS_MAX || b.length > WORDS_MAX) return [["removed", from], ["added", to]];
  const common = lengths(a, b);
  const parts: [Kind, string][] = [];
  const put = (kind: Kind, word: string) => {
    const last = parts.at(-1);
    if (last?.[0] === kind) last[1] += word;
    else parts.push([kind, word]);
  };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      put("same", a[i]!);
      i += 1;
      j += 1;
    } else if (j >= b.length || (i < a.length && common[i + 1]![j]! >= common[i]![j + 1]!)) {
      put("removed", a[i]!);
      i += 1;
    } else {
      put("added", b[j]!);
      j += 1;
    }
  }
  return parts;
}

/** The length of the longest common sequence of what follows each pair of positions. */
function lengths(a: string[], b: string[]): Uint16Array[] {
  const rows = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      rows[i]![j] = a[i] === b[j] ? rows[i + 1]![j + 1]! + 1 : Math.max(rows[i + 1]![j]!, rows[i]![j + 1]!);
    }
  }
  return rows;
}
