"""What the failures of a workflow have in common."""

from __future__ import annotations

from datetime import datetime

from msgspec import field

from jobmon.core.wire import Message


class FailureGroup(Message, frozen=True, kw_only=True):
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


class FailureConcentration(Message, frozen=True, kw_only=True):
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


class FailuresResponse(Message, frozen=True, kw_only=True):
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
