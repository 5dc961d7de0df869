// Server-sent events as text. Pure.

export interface ServerEvent {
  name: string;
  id: string;
  data: string;
}

/** Splits a stream of text into events, as far as our server uses the format: one line of data each. */
export class EventParser {
  private rest = "";

  take(text: string): ServerEvent[] {
    const blocks = (this.rest + text).split("\n\n");
    this.rest = blocks.pop()!;
    return blocks.flatMap((block) => {
      const event: ServerEvent = { name: "", id: "", data: "" };
      for (const line of block.split("\n")) {
        const [field, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).replace(/^ /, "")];
        if (field === "event") event.name = value;
        else if (field === "id") event.id = value;
        else if (field === "data") event.data = value;
      }
      return event.data ? [event] : [];
    });
  }
}
