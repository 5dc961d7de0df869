// A report: this page with the answers of a server, in one file. Without them, the page asks a server.

interface Recorded {
  workflow_id: number;
  made_at: string;
  version: string;
  /** Answers by path, without the query. */
  answers: Record<string, unknown>;
}

const element = document.getElementById("recorded");
/** What this report holds; null: this is the page of a server. */
export const recorded: Recorded | null = element ? (JSON.parse(element.textContent) as Recorded) : null;

/** Whether there is a view of a task: always, on a server. */
export const hasTask = (id: number): boolean => !recorded || `/tasks/${id}` in recorded.answers;
