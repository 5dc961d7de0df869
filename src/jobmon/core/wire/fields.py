"""Lengths and ranges of message fields. A request with a value outside of them is answered with 422.

They match the database columns and are the same for SQLite and PostgreSQL; a test compares every field with its
column. Responses have no limits: what was recorded before a limit existed must remain readable.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta

from jobmon.core.constants import PRIORITY_MAX
from jobmon.core.texts import NAME_CHARACTERS_MAX

HASH_CHARACTERS_MAX: Final = 64
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
#: Some 30 years, so that a time plus this many seconds is still a valid time.
SECONDS_MAX: Final = 1e9
#: Free-form JSON: maximum nesting depth, and maximum size of one value in bytes.
JSON_DEPTH_MAX: Final = 32
JSON_BYTES_MAX: Final = 1024 * 1024
#: Times are stored as microseconds; outside of these years they cannot be read back in every time zone.
YEAR_MIN: Final = 1900
YEAR_MAX: Final = 9998

Name = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
Hash = Annotated[str, Meta(max_length=HASH_CHARACTERS_MAX)]
#: Limited only by the size of the request (`binding.REQUEST_BYTES_MAX`): counting the characters of commands is slow.
Text = Annotated[str, Meta(description="of any length that fits into a request")]
Id = Annotated[int, Meta(ge=1, le=INT64_MAX)]
#: A count or number in a column of 32 bits.
Count = Annotated[int, Meta(ge=0, le=INT32_MAX)]
#: A count, number or stamp in a column of 64 bits, or one that is not stored.
BigCount = Annotated[int, Meta(ge=0, le=INT64_MAX)]
#: A priority: positive numbers go first. 0 is the default.
Priority = Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
#: A number of 64 bits that may be negative, such as an overdrawn capacity.
Number = Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)]
Bytes = BigCount
Stamp = BigCount
ProcessId = BigCount
ExitCode = Annotated[int, Meta(ge=-INT32_MAX - 1, le=INT32_MAX)]
Signal = ExitCode
Seconds = Annotated[float, Meta(ge=0.0, le=SECONDS_MAX)]
#: A duration measured elsewhere: possibly summed over many cores, possibly by a clock that was set.
Measured = Annotated[float, Meta(ge=-SECONDS_MAX, le=1e15)]
#: Seconds since the epoch.
Moment = Annotated[float, Meta(ge=0.0, le=1e11)]
#: Cores of a pool; fractions are allowed.
Cores = Annotated[float, Meta(ge=0.0, le=1e9)]
Time = Annotated[datetime, Meta(tz=True)]
#: JSON created by the user or by a plug-in.
FreeForm = dict[str, Any]


def check_time(name: str, time: datetime | None) -> None:
    """Reject a time that cannot be stored and read back.

    Raises:
        ValueError: its year is out of range.
    """
    if time is not None and not YEAR_MIN <= time.year <= YEAR_MAX:
        raise ValueError(f"{name}: {time.isoformat()} is not between the years {YEAR_MIN} and {YEAR_MAX}.")


def check_free_form(name: str, value: Any) -> None:
    """Reject free-form JSON that is nested too deeply or is too large.

    Raises:
        ValueError: a limit is exceeded; the text names it.
    """
    if _is_deeper(value, JSON_DEPTH_MAX):
        raise ValueError(f"{name}: nested more than {JSON_DEPTH_MAX} deep.")
    size = _size(value)
    if size > JSON_BYTES_MAX:
        raise ValueError(f"{name}: about {size} bytes of JSON; at most {JSON_BYTES_MAX} are allowed.")


def _is_deeper(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth == 0 or any(_is_deeper(inner, depth - 1) for inner in value.values())
    if isinstance(value, list | tuple):
        return depth == 0 or any(_is_deeper(inner, depth - 1) for inner in value)
    return False


def _size(value: Any) -> int:
    """Return the approximate size in bytes, as JSON, of a value of bounded depth."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict):
        return 2 + sum(len(str(key)) + 4 + _size(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(1 + _size(inner) for inner in value)
    return len(str(value))
