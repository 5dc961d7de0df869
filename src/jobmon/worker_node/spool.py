"""Reports that could not be delivered lie beside the log, private, until a later worker delivers them."""

from __future__ import annotations

import os

from jobmon.worker_node import quick

SUFFIX = ".report"
DAMAGED_SUFFIX = ".damaged"
REPLAYED_MAX = 20
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def keep(folder: str, identity: int, message: Mapping[str, Any]) -> str | None:
    """Keep a report; return its path, or None where nothing can be written (then the server will ask)."""
    path = os.path.join(folder, f"{identity}{SUFFIX}")
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(quick.dumps(message).encode())
        os.rename(f"{path}.new", path)
    except OSError:
        return None
    return path


def replay(folder: str, deliver: Callable[[Mapping[str, Any]], bool]) -> int:
    """Deliver what lies here, at most a few; return how many were.

    What is damaged is put aside under another name, so that a person can look at it and it holds nobody up. What cannot
    be read now stays for the next.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except OSError:
        return 0
    delivered = 0
    for name in names[:REPLAYED_MAX]:
        path = os.path.join(folder, name)
        try:
            message = _read(path)
        except OSError:
            continue
        if message is None:
            _put_aside(path)
        elif deliver(message):
            delivered += 1
            remove(path)
        else:
            break
    return delivered


def _read(path: str) -> dict[str, Any] | None:
    """Return a report, or None if it is damaged."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        message = quick.loads(content.decode())
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _put_aside(path: str) -> None:
    try:
        os.rename(path, path + DAMAGED_SUFFIX)
    except OSError:
        return


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
