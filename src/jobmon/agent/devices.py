"""Indexed and counted resources of this machine, such as GPUs and licences: each is held by one command at a time.

A command gets tokens, e.g. GPU indices. Each token in use has a locked file, so that agents of this user's other
workflows do not take it and it becomes free when its agent dies. Imports only the standard library (`python -I -S`).
"""

from __future__ import annotations

import os

GPUS = "gpus"
#: Variables that tell commands the indices of their GPUs and the tokens of other resources.
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
RESOURCE_VARIABLE = "JOBMON_RESOURCE_"
#: Interval at which tokens held by another agent are retried.
RETRY_SECONDS = 0.5
NOT_LOCKED = -1
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def asked_of(requested: Mapping[str, Any]) -> dict[str, int]:
    """Return resource -> number of tokens requested. Amounts that are not counts, as on other clusters, are ignored."""
    found = requested.get("resources")
    counts = found if isinstance(found, dict) else {}
    asked = {str(name): count for name, count in counts.items() if isinstance(count, int) and count > 0}
    if gpus := count_of(requested.get(GPUS)):
        asked[GPUS] = gpus
    return asked


def count_of(gpus: object) -> int:
    """Return the number of GPUs requested by a value such as 2, "2", "a100:2" or "a100"; 0: none."""
    if gpus is None or isinstance(gpus, bool):
        return 0
    _, _, number = str(gpus).rpartition(":")
    if number.isascii() and number.isdecimal():
        return int(number)
    return 1 if isinstance(gpus, str) and gpus else 0


def of_job(environment: Mapping[str, str], requested: Mapping[str, Any], width: int) -> tuple[Devices | None, int]:
    """Return the GPUs of a job that runs several tasks concurrently, and how many tasks it may run concurrently.

    Args:
        environment: the job's environment, in which the scheduler names its GPUs.
        requested: the resources that each task requests.
        width: the number of tasks to run concurrently.

    Returns:
        None if there is nothing to divide; one task at a time if the scheduler names fewer GPUs than a task needs.
    """
    each = count_of(requested.get(GPUS))
    if width < 2 or not each:
        return None, width
    tokens = [one.strip() for one in environment.get(GPUS_VARIABLE, "").split(",") if one.strip()]
    if len(tokens) < each:
        return None, 1
    return Devices({GPUS: tokens}), min(width, len(tokens) // each)


def problem_with(asked: Mapping[str, int], there: Mapping[str, Sequence[str]]) -> str:
    """Return why this machine can never satisfy a request; "": it can.

    Args:
        asked: resource -> number of tokens requested.
        there: resource -> tokens of this machine.
    """
    for name, count in asked.items():
        has = len(there.get(name, ()))
        if count > has:
            setting = "multiprocess.gpus" if name == GPUS else "multiprocess.resources"
            return f"{name} {count}: this machine has {has or 'none'} (see the setting {setting})"
    return ""


class Devices:
    """The tokens held by the commands of this agent.

    Args:
        there: resource -> tokens of this machine.
        folder: the existing folder, owned by us, of the lock files; "": no other agent uses the tokens.
    """

    def __init__(self, there: Mapping[str, Sequence[str]], folder: str = "") -> None:
        self.there = there
        self._folder = folder
        self._held: dict[int, list[tuple[str, str, int]]] = {}  # attempt -> resource, token, descriptor

    def take(self, identity: int, asked: Mapping[str, int]) -> dict[str, str] | None:
        """Take tokens for an attempt; return the variables they add to its environment, or None if they are in use."""
        held: list[tuple[str, str, int]] = []
        asked = {name: count for name, count in asked.items() if name in self.there}
        for name, count in asked.items():
            taken = self._take(name, count)
            held += taken
            if len(taken) < count:
                _close(held)
                return None
        if held:
            self._held[identity] = held
        return {variable_of(name): ",".join(one for of, one, _ in held if of == name) for name in asked}

    def _take(self, name: str, count: int) -> list[tuple[str, str, int]]:
        taken: list[tuple[str, str, int]] = []
        used = {token for held in self._held.values() for of, token, _ in held if of == name}
        for token in self.there[name]:
            if len(taken) == count:
                break
            if token in used:
                continue
            word = "".join(one if one.isalnum() else "_" for one in token)
            path = os.path.join(self._folder, f"device-{name}-{word}.lock")
            descriptor = _locked(path) if self._folder else NOT_LOCKED
            if descriptor is not None:
                taken.append((name, token, descriptor))
        return taken

    def problem_with(self, asked: Mapping[str, int]) -> str:
        """Return why a request can never be satisfied; "": it can, or no lock files are used."""
        if not self._folder:
            return ""
        return problem_with(asked, self.there)

    def release(self, identity: int) -> None:
        """Release the tokens of an attempt."""
        _close(self._held.pop(identity, ()))


def variable_of(name: str) -> str:
    """Return the name of the variable that tells a command its tokens."""
    if name == GPUS:
        return GPUS_VARIABLE
    return RESOURCE_VARIABLE + "".join(one if one.isalnum() else "_" for one in name).upper()


def _locked(path: str) -> int | None:
    """Lock a file and return its descriptor; None: it cannot be opened, or it is locked, be it by this process."""
    import fcntl  # few programs have tokens

    try:
        descriptor = os.open(path, _LOCK_FLAGS, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _close(held: Sequence[tuple[str, str, int]]) -> None:
    for _, _, descriptor in held:
        if descriptor != NOT_LOCKED:
            os.close(descriptor)
