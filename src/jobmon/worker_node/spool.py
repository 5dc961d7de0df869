"""Reports that could not be delivered lie beside the log, private, until a later worker delivers them."""

from __future__ import annotations

import json
import os

SUFFIX = ".report"
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
            file.write(json.dumps(message).encode())
        os.rename(f"{path}.new", path)
    except OSError:
        return None
    return path


def replay(folder: str, deliver: Callable[[Mapping[str, Any]], bool]) -> int:
    """Deliver what lies here, at most a few; return how many were. What cannot be read is removed."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except OSError:
        return 0
    delivered = 0
    for name in names[:REPLAYED_MAX]:
        path = os.path.join(folder, name)
        message = _read(path)
        if message is None or deliver(message):
            delivered += message is not None
            _remove(path)
        else:
            break
    return delivered


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            message = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
