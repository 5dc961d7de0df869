"""Compare the executions that tasks recorded in files with the database."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

DONE = "D"
#: Causes that explain a completed command: it was killed, for a cold resume or a stop, before its shell exited.
KILLED = ("killed for resume", "killed")


@dataclass(frozen=True)
class Struck:
    """Kills: of a host agent (or its suspension), and of the stand-alone workers of some attempts."""

    agent: bool = False
    attempts: frozenset = frozenset()

    def window(self, attempt):
        """Return why the completion of an attempt could go unrecorded; None: it should have been recorded."""
        if attempt["cause"] in ("worker lost", "killed its parent") and self.agent:
            return "after a killed or suspended agent"
        if attempt["id"] in self.attempts:
            return "after a killed worker"
        return "while killed for a resume or stop" if attempt["cause"] in KILLED else None


@dataclass
class Count:
    tasks: int = 0
    lines: int = 0
    attempts: int = 0
    lost: list = field(default_factory=list)
    repeated: list = field(default_factory=list)
    explained: Counter = field(default_factory=Counter)
    causes: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)


def count(world, struck=Struck()):
    """Compare the ledger files with the database.

    Lost: an attempt is DONE but its line is missing; or its line exists, but the attempt is not DONE and no cause
    explains that; or a task is not DONE. Repeated: an attempt was queued after an earlier one was DONE; or a command
    completed twice and no cause explains it.
    """
    tasks, attempts = _read(world)
    result = Count(tasks=len(tasks), attempts=sum(map(len, attempts.values())))
    for task_id, (name, status) in tasks.items():
        lines = _lines(world.ledger / name.rsplit("-", 1)[-1])
        result.lines += len(lines)
        _judge(result, name, status, lines, attempts.get(task_id, []), struck)
    return result


def _judge(result, name, status, lines, attempts, struck):
    if status != DONE:
        result.lost.append(f"{name} is {status}")
    done = [one for one in attempts if one["status"] == DONE]
    if len(done) > 1 or (done and attempts[-1] is not done[0]):
        result.repeated.append(f"{name}: {[(one['id'], one['status'], one['cause']) for one in attempts]}")
    by_id = {one["id"]: one for one in attempts}
    for one in attempts:
        if one["status"] != DONE:
            result.causes[one["cause"]] += 1
            result.errors[f"{one['status']} {one['cause']}: {one['error']}"] += 1
        if one["status"] == DONE and one["id"] not in lines:
            result.lost.append(f"{name}: attempt {one['id']} is DONE and left no line")
    for identity in lines:
        one = by_id.get(identity)
        if one is None:
            result.repeated.append(f"{name}: a line of the unknown attempt {identity}")
        elif one["status"] != DONE:
            window = struck.window(one)
            if window is None:
                result.lost.append(
                    f"{name}: attempt {identity} completed but is {one['status']} ({one['cause']}: {one['error']})"
                )
            else:
                result.explained[window] += 1
    if len(set(lines)) != len(lines):
        result.repeated.append(f"{name}: one attempt ran twice: {lines}")


def _lines(path):
    try:
        return [int(line.split()[1]) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


def _read(world):
    tasks = {row[0]: row[1:] for row in world.rows("SELECT id, name, status FROM task")}
    names = ("id", "status", "cause", "queued_at", "ended_at", "error")
    attempts = {}
    for task_id, *values in world.rows(f"SELECT task_id, {', '.join(names)} FROM task_instance ORDER BY id"):
        attempts.setdefault(task_id, []).append(dict(zip(names, values, strict=True)))
    return tasks, attempts


def done_count(world):
    """Return the number of done tasks; 0 while the database does not respond or has no schema."""
    with contextlib.suppress(DBAPIError):
        return world.rows("SELECT COUNT(*) FROM task WHERE status = 'D'")[0][0] if world.has_database() else 0
    return 0
