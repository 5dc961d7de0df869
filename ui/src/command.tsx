// Commands that the page names, with a button that copies them.

import { useEffect, useRef, useState } from "preact/hooks";
import { plain, splitAtCommands } from "./words";

const COPIED_MILLISECONDS = 2_000;

/** A button that copies a text; where a browser forbids that, `select` marks what to copy. */
export function CopyButton({ text, label, select }: { text: string; label: string; select?: () => void }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return undefined;
    const timer = setTimeout(() => setCopied(false), COPIED_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [isCopied]);

  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      select?.(); // without https a browser lets nobody write to the clipboard
    }
  }
  return (
    <button type="button" class="copy" aria-label={label} onClick={() => void copy()}>
      {isCopied ? "Copied" : "Copy"}
    </button>
  );
}

/** A command to type, with a button that copies it. */
export function Command({ text }: { text: string }) {
  const code = useRef<HTMLElement>(null);
  return (
    <span class="command">
      <code ref={code}>{plain(text)}</code>{" "}
      <CopyButton
        text={text}
        label={`Copy: ${text}`}
        select={() => getSelection()?.selectAllChildren(code.current!)}
      />
    </span>
  );
}

/** A sentence; commands in it that can be typed as they are can be copied. */
export function WithCommands({ text }: { text: string }) {
  return (
    <>{splitAtCommands(text).map((part, number) => (number % 2 ? <Command key={number} text={part} /> : plain(part)))}</>
  );
}
