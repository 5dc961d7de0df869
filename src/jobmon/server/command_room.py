"""Limit the commands in one answer by their number of characters, not only by their count."""

from __future__ import annotations

from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any

from jobmon.core.wire.launching import COMMAND_CHARACTERS_PER_RESPONSE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class CommandRoom:
    """The number of command characters that still fit into an answer.

    Args:
        characters: capacity of an empty answer.
    """

    def __init__(self, characters: int = COMMAND_CHARACTERS_PER_RESPONSE_MAX) -> None:
        self._left = characters
        self._is_empty = True

    def admit(
        self, rows: Sequence[tuple[Any, ...]], length_of: Callable[[tuple[Any, ...]], int]
    ) -> list[tuple[Any, ...]]:
        """Return the first rows whose commands fit, and reserve their space. An empty answer always takes one row.

        Args:
            rows: attempts, in order.
            length_of: returns the characters of an attempt's command.
        """
        lengths = [length_of(row) for row in rows]
        count = sum(1 for _ in takewhile(lambda total: total <= self._left, accumulate(lengths)))
        if self._is_empty and rows:
            count = max(1, count)
        self._is_empty = self._is_empty and not count
        self._left = max(0, self._left - sum(lengths[:count]))
        return list(rows[:count])
