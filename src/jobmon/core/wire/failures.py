"""What the failures of a workflow have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Failed attempts that are alike: same template, outcome, and message without numbers and paths.

    `hosts`: the hosts with most of them -> number of attempts. The example is the newest.
    """

    template: str
    ending: str
    cause: str
    message: str
    count: int
    share: float
    first_at: datetime
    last_at: datetime
    hosts: dict[str, int]
    task_id: int
    task_name: str
    task_instance_id: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureConcentration:
    """`failed` of all `failures` have this value, which `count` of `total` have. `chance`: corrected for all tried.

    `what` is "host" (attempts are counted) or the name of an argument (tasks are counted).
    """

    what: str
    value: str
    failed: int
    failures: int
    count: int
    total: int
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresResponse:
    """GET /workflows/{workflow_id}/failures?limit=: groups of failed attempts, the largest first, at most `limit`.

    `failures`: number of failures examined, which are the newest ones if `is_cut`, otherwise all. `uncharged`: how many
    attempts ended without counting as failures, by outcome; also of the newest.
    """

    workflow_id: int
    failures: int
    is_cut: bool
    group_count: int
    groups: list[FailureGroup]
    concentrations: list[FailureConcentration]
    uncharged: dict[str, int] = field(default_factory=dict)
