"""What a use case gets: a session inside a transaction, the time, the settings, and a place to note what it touched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from jobmon.server.settings import Settings
from jobmon.server.sql import Session

_encoder = msgspec.json.Encoder()


def to_json(value: Any) -> str:
    """Return the JSON text in which values are stored."""
    return _encoder.encode(value).decode()


class Audience(StrEnum):
    """Who waits for news of a workflow."""

    ORCHESTRATOR = "orchestrator"
    DISTRIBUTOR = "distributor"


#: What a long poll waits for: an audience and a workflow id.
Topic = tuple[Audience, int]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What use cases know of the server: its settings and when it started (microseconds)."""

    settings: Settings
    started_at: int


@dataclass(slots=True)
class Effects:
    """What a transaction did besides its rows: whom to wake, and which late changes were ignored."""

    topics: set[Topic] = field(default_factory=set)
    ignored: Counter[tuple[str, str, str]] = field(default_factory=Counter)


class Transaction(Session):
    """A session that lives for one transaction. `now` is the time of day, in microseconds."""

    def __init__(self, connection: Any, dialect: str, surroundings: Surroundings) -> None:
        super().__init__(connection, dialect)
        self.settings = surroundings.settings
        self.started_at = surroundings.started_at
        self.now = 0
        self.effects = Effects()
        self._stamp: int | None = None

    def start(self, now: int) -> None:
        """Begin anew."""
        self.now, self.effects, self._stamp = now, Effects(), None
        self.begin(writing=True)

    @property
    def stamp(self) -> int:
        """The logical time of all changes in this transaction: later than that of every one before."""
        if self._stamp is None:
            last = self.value("SELECT stamp FROM logical_clock WHERE id = 1 FOR UPDATE")
            self._stamp = max(self.now, last + 1)
            self.run("UPDATE logical_clock SET stamp = :stamp WHERE id = 1", stamp=self._stamp)
        return self._stamp

    @property
    def known_until(self) -> int:
        """The logical time up to which all changes are visible here; what this transaction changes may come after it.

        Several requests share a transaction and its stamp: whoever asked first must hear what came after him, too.
        """
        if self._stamp is not None:
            return self._stamp - 1
        return int(self.value("SELECT stamp FROM logical_clock WHERE id = 1"))

    def wake(self, audience: Audience, workflow_id: int) -> None:
        """Wake who waits for news of a workflow, once this is committed."""
        self.effects.topics.add((audience, workflow_id))

    def wake_all(self, workflow_id: int) -> None:
        """Wake everybody who waits for news of a workflow."""
        for audience in Audience:
            self.wake(audience, workflow_id)

    def audit(self, actor: str, action: str, workflow_id: int | None, **details: Any) -> None:
        """Record what somebody did."""
        self.insert("audit", at=self.now, actor=actor, action=action, workflow_id=workflow_id, details=to_json(details))
