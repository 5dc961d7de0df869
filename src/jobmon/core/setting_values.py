"""The values that settings may have: each kind parses a value of any type, and says what it accepts.

A value comes from YAML, the environment or code, so it may be a text where a number is expected, or the reverse.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobmon.agent.addresses import PORT_MAX
from jobmon.agent.devices import GPUS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

TEXT_CHARACTERS_MAX: Final = 4_096
#: Maximum number of names in a list of users, groups or events.
NAMES_MAX: Final = 10_000
#: Maximum number of receivers of notifications.
DESTINATIONS_MAX: Final = 20
#: Ports below need privileges.
PORT_MIN: Final = 1_024
#: Maximum number of tokens of one resource of a machine, and of such resources.
DEVICES_MAX: Final = 1_024
DEVICE_NAMES_MAX: Final = 32
#: How similar a variable must be to a misspelt one to be named, from 0 to 1; the prefix counts.
SIMILARITY_MIN: Final = 0.8
NO_GPUS: Final = "none"
DEVICE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)
_GPU: Final = re.compile(r"[A-Za-z0-9_:/.-]{1,64}", re.ASCII)
_SEPARATORS: Final = re.compile(r"[\s,]+")


class Values(Protocol):
    """The values of a setting. `wanted` completes "must be"."""

    @property
    def wanted(self) -> str:
        """What it accepts."""

    def parse(self, value: Any) -> Any:
        """Return a value in the type of the setting.

        Raises:
            ValueError, TypeError, OverflowError: it is not accepted.
        """


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`; `is_above`: `low` itself is excluded; `is_whole`: an integer."""

    low: float
    high: float
    is_above: bool = False
    is_whole: bool = False

    @property
    def wanted(self) -> str:
        """What it accepts."""
        what = "a whole number" if self.is_whole else "a number"
        if self.is_above:
            return f"{what} above {self.low:,} and at most {self.high:,}"
        return f"{what} from {self.low:,} to {self.high:,}"

    def parse(self, value: Any) -> float:
        """Return the number."""
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
        if not math.isfinite(number) or not self.low <= number <= self.high or (self.is_above and number == self.low):
            raise ValueError
        if self.is_whole and not number.is_integer():
            raise ValueError
        return int(number) if self.is_whole else number


class Flag:
    """True or false."""

    wanted: Final = "true or false"

    def parse(self, value: Any) -> bool:
        """Return true for true, yes, on, 1; false for false, no, off, 0 and an empty text."""
        word = str(value).strip().lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0", ""):
            return False
        raise ValueError


@dataclass(frozen=True, slots=True)
class Word:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """What it accepts."""
        given = [repr(word) for word in self.words if word]
        return f"{', '.join(given[:-1])} or {given[-1]}{', or empty' if '' in self.words else ''}"

    def parse(self, value: Any) -> str:
        """Return the word."""
        word = _text(value)
        if word not in self.words:
            raise ValueError
        return word


@dataclass(frozen=True, slots=True)
class Text:
    """A text of one line that matches a pattern as a whole."""

    wanted: str = "a text of one line"
    pattern: str = ".*"

    def parse(self, value: Any) -> str:
        """Return the text; nothing in a file means an empty text."""
        text = _text(value)
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError
        return text


@dataclass(frozen=True, slots=True)
class Names:
    """A list of words, or a text with words between white space and commas; each of them matches a pattern."""

    wanted: str
    pattern: str
    separators: str = _SEPARATORS.pattern
    number_max: int = NAMES_MAX

    def parse(self, value: Any) -> tuple[str, ...]:
        """Return the words."""
        given = re.split(self.separators, value) if isinstance(value, str) else value
        words = [_text(one) for one in (given if isinstance(given, list) else [given])]
        found = tuple(word for word in words if word)
        if len(found) > self.number_max or not all(re.fullmatch(self.pattern, word) for word in found):
            raise ValueError
        return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | Mapping) or not isinstance(value, str | int | float):
        raise TypeError
    text = str(value)
    if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
        raise ValueError
    return text


class Ports:
    """A port, or the first and last port of a range; empty: any port."""

    wanted: Final = f"a port or a range such as 40000-40100, from {PORT_MIN} to {PORT_MAX}, or empty"

    def parse(self, value: Any) -> Sequence[int]:
        """Return the ports."""
        first, _, last = _text(value).replace(" ", "").partition("-")
        if not first and not last:
            return ()
        bounds = [int(one) if re.fullmatch("[0-9]{1,5}", one) else 0 for one in (first, last or first)]
        if not PORT_MIN <= bounds[0] <= bounds[1] <= PORT_MAX:
            raise ValueError
        return range(bounds[0], bounds[1] + 1)


class Gpus:
    """Indices of GPUs; `none`; or empty: those that are detected."""

    wanted: Final = "a list of different indices such as 0,1, or 'none', or empty"

    def parse(self, value: Any) -> list[str] | None:
        """Return the indices; None: those that are detected."""
        text = _text(value).strip()
        if not text:
            return None
        if text == NO_GPUS:
            return []
        found = [one.strip() for one in text.split(",") if one.strip()]
        if len(set(found)) < len(found) or len(found) > DEVICES_MAX or not all(map(_GPU.fullmatch, found)):
            raise ValueError
        return found


class Devices:
    """Other countable resources of a machine."""

    wanted: Final = f"names with numbers up to {DEVICES_MAX}, such as licence=3,scratch=2, or empty"

    def parse(self, value: Any) -> dict[str, list[str]]:
        """Return the tokens of each resource."""
        found: dict[str, list[str]] = {}
        for part in filter(None, (one.strip() for one in _text(value).split(","))):
            name, _, number = (one.strip() for one in part.partition("="))
            count = int(number) if re.fullmatch("[0-9]{1,4}", number) else DEVICES_MAX + 1
            if DEVICE_NAME.fullmatch(name) is None or name == GPUS or count > DEVICES_MAX:
                raise ValueError
            found[name] = [str(one) for one in range(count)]
        if len(found) > DEVICE_NAMES_MAX:
            raise ValueError
        return found


class Consent:
    """What a resume does with changed tasks: a mode, or one for each template as JSON."""

    def __init__(self, *modes: str) -> None:
        self._modes = modes

    @property
    def wanted(self) -> str:
        """What it accepts."""
        return f"{Word(self._modes).wanted}, or one of these for each template as JSON"

    def parse(self, value: Any) -> str | dict[str, str]:
        """Return the mode, or that of each template."""
        text = json.dumps(value) if isinstance(value, dict) else _text(value)
        found = json.loads(text) if text.startswith("{") else text
        modes = found.values() if isinstance(found, dict) else (found,)
        if not all(mode in self._modes for mode in modes):
            raise ValueError
        return found


def unknown_variables(names: Iterable[str], known: Collection[str], prefix: str) -> Iterator[str]:
    """Yield a warning for each environment variable that looks like a setting and is none.

    Args:
        names: the environment variables that are set.
        known: those that are read.
        prefix: what the names of settings begin with.
    """
    for name in names:
        if name.startswith(prefix) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=SIMILARITY_MIN)
            hint = f"; did you mean {near[0]}?" if near else "; see: jobmon config show."
            yield f"Environment variable {name} is no setting{hint} It is ignored."
