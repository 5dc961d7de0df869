"""Small WfFormat documents for tests, as plain dictionaries that a test can damage."""

from __future__ import annotations

import json
from typing import Any


def fork_join(width: int = 3, seconds: float = 10.0, percent: float = 100.0) -> dict[str, Any]:
    """One task, then `width` parallel ones, then one; each parallel task passes on a file."""
    sides = [f"work_ID{number:05}" for number in range(2, width + 2)]
    files = [{"id": "in.txt", "sizeInBytes": 1000}, {"id": "split.txt", "sizeInBytes": 2000}]
    files += [{"id": f"{side}.out", "sizeInBytes": 500} for side in sides]
    tasks = [task("split_ID00001", [], sides, ["in.txt"], ["split.txt"])]
    tasks += [task(side, ["split_ID00001"], ["join_ID09999"], ["split.txt"], [f"{side}.out"]) for side in sides]
    tasks.append(task("join_ID09999", sides, [], [f"{side}.out" for side in sides], []))
    runs = [
        {"id": entry["id"], "runtimeInSeconds": seconds, "avgCPU": percent, "command": {"program": "x"}}
        for entry in tasks
    ]
    return {
        "name": "fork-join",
        "description": "A small one.",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": tasks, "files": files},
            "execution": {
                "makespanInSeconds": 4 * seconds,
                "executedAt": "2024-01-01T00:00:00Z",
                "tasks": runs,
                "machines": [{"nodeName": "one", "cpu": {"coreCount": 4}}],
            },
        },
    }


def task(
    task_id: str, parents: list[str], children: list[str], inputs: list[str], outputs: list[str]
) -> dict[str, Any]:
    """One task of the specification."""
    return {
        "id": task_id,
        "name": task_id,
        "parents": parents,
        "children": children,
        "inputFiles": inputs,
        "outputFiles": outputs,
    }


def encoded(document: Any) -> bytes:
    """The document as the bytes of a file."""
    return json.dumps(document).encode()
