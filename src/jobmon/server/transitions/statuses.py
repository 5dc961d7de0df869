"""Check that a change of status is legal."""

from __future__ import annotations

from jobmon.core import fsm
from jobmon.core.exceptions import InvalidStateTransition
from jobmon.core.fsm import Machine, Verdict


def assert_legal(machine: Machine, identity: object, source: str, target: str) -> None:
    """Check that the table allows a change of status.

    Raises:
        InvalidStateTransition: the table forbids it.
    """
    if fsm.judge(machine, source, target) is not Verdict.LEGAL:
        raise InvalidStateTransition.of(machine, identity, source, target)
