"""Python functions as tasks: count the letters of several texts in parallel, then compare the counts.

The functions are ordinary typed functions. The code that creates and runs tasks is under `if __name__ == "__main__"`,
because the worker imports this file to find the functions.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jobmon.core.task_generator import task_generator


class Case(Enum):
    """Whether capitals count as separate letters."""

    KEEP = "as it is"
    FOLD = "small letters"


@dataclass(frozen=True)
class Job:
    """A text, its title, and how to count its letters."""

    title: str
    text: str
    case: Case = Case.FOLD


@task_generator(tool_name="letters", naming_args=["output"], default_compute_resources={"cores": 1})
def count(job: Job, output: Path) -> None:
    """Count the letters of one text."""
    text = job.text.casefold() if job.case is Case.FOLD else job.text
    output.write_text(json.dumps({"title": job.title, "letters": Counter(filter(str.isalpha, text))}))


@task_generator(tool_name="letters", max_attempts=2)
def compare(counts: list[Path], output: Path, most: int = 3) -> None:
    """Write the most frequent letters of each text."""
    lines = []
    for path in counts:
        counted = json.loads(path.read_text())
        frequent = Counter(counted["letters"]).most_common(most)
        lines.append(f"{counted['title']}: {', '.join(f'{letter} {number}' for letter, number in frequent)}")
    output.write_text("\n".join(lines) + "\n")


JOBS = [
    Job("Pangram", "The quick brown fox jumps over the lazy dog."),
    Job('Kafka\'s "beetle"', "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte ..."),
    Job("What a shell would like", "$(echo {no}) `nothing` 100% 'quoted'; -rf\n* ~ \\"),
    Job("LOUD", "aAA", Case.KEEP),
]


def main(folder: Path) -> str:
    """Run the workflow; return its status."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "letters.txt"
    workflow = count.tool.create_workflow(name="letters")
    outputs = [folder / f"{number}.json" for number in range(len(JOBS))]
    counted = [count.create_task(job=job, output=output) for job, output in zip(JOBS, outputs, strict=True)]
    workflow.add_tasks(counted)
    workflow.add_task(compare.create_task(counts=outputs, output=report, upstream_tasks=counted))
    status = workflow.run()
    if report.exists():
        print(report.read_text(), end="")
    return status


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output/letters").absolute()))
