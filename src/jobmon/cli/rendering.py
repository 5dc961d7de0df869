"""Formatting of results: tables (rich; 80 columns without a terminal, `NO_COLOR` is respected) and JSON."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.core.redaction import redacted_url
from jobmon.core.terminal import plain, unguarded

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from rich.console import Console

OUTPUT: Final = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output format."
)
#: Spaces between two columns of a table.
COLUMN_GAP: Final = 2
#: Words longer than this may be folded.
WORD_WIDTH_MAX: Final = 24
_PASSWORD: Final = re.compile(r"(://[^:/@]*):[^@]*@")
#: The units of requests and of the page: powers of 1024.
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
#: Upper bound of the memory of agents and workers, which Linux counts towards the commands that they start.
STARTER_BYTES_MAX: Final = 20 * 1024**2


def show_json(value: Any) -> None:
    """Print a value, a message, or a list of messages as JSON."""
    import msgspec

    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table without truncation: long values are folded, headings are not. `right`: the columns with numbers.

    If the table does not fit, each row becomes a block of names and values.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=unguarded(sys.stdout), highlight=False)
    cells = [[_cell(value) for value in row] for row in rows]
    whole = {number for number, name in enumerate(columns) if name in right}
    widths = _widths(columns, cells, whole, console.width - COLUMN_GAP * (len(columns) - 1))
    if widths is None:
        _show_blocks(console, columns, cells)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], whole: Container[int], room: int
) -> list[int] | None:
    """Return the widths of the columns; None: not even the headings fit.

    Words, and the values of the columns in `whole`, are not broken if possible; where there is not enough room, short
    ones such as IDs, statuses and times stay whole. The remaining space goes to the columns that need most.
    """
    from rich.cells import cell_len

    headings = [max(map(cell_len, name.split()), default=1) for name in columns]
    wanted, words = list(map(cell_len, columns)), list(headings)
    for row in cells:
        for number, text in enumerate(row):
            wanted[number] = max(wanted[number], *map(cell_len, text.splitlines() or [""]))
            kept = [text] if number in whole else text.split()
            words[number] = max(words[number], *(min(cell_len(word), WORD_WIDTH_MAX) for word in kept or [""]))
    if sum(headings) > room:
        return None
    widths = list(wanted) if sum(wanted) <= room else _grown(headings, words, room)
    for _ in range(min(room, sum(wanted)) - sum(widths)):
        neediest = max(range(len(widths)), key=lambda number: wanted[number] - widths[number])
        widths[neediest] += 1
    return widths


def _grown(least: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Widen columns from `least` to their longest words, those that need least first, as far as `room` allows."""
    widths, spare = list(least), room - sum(least)
    for number in sorted(range(len(widths)), key=lambda number: words[number] - least[number]):
        need = words[number] - least[number]
        if need > spare:
            break
        widths[number], spare = words[number], spare - need
    return widths


def _show_blocks(console: Console, columns: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    from rich.text import Text

    width = max(map(len, columns), default=0)
    for number, row in enumerate(cells):
        pairs = [f"{name:<{width}}  {text}".rstrip() for name, text in zip(columns, row, strict=True)]
        console.print(Text("\n".join(["", *pairs] if number else pairs)), soft_wrap=True)


def show_pairs(values: Mapping[str, object]) -> None:
    """Print names and values, one pair per line."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        click.echo(f"{name:<{width}}  {_cell(value)}")


def without_password(uri: str) -> str:
    """Return a URI with asterisks instead of its password.

    >>> without_password("postgresql://jobmon:secret@db/jobmon")
    'postgresql://jobmon:***@db/jobmon'
    """
    return _PASSWORD.sub(r"\1:***@", uri)


def hide_secret(sections: Mapping[str, dict[str, Any]], key: str) -> None:
    """Replace a token, the password in a URI, or everything in the addresses of receivers with asterisks."""
    for settings in sections.values():
        if key == "urls":
            _hide_urls(settings)
            continue
        value = str(settings.get(key) or "")
        if value:
            settings[key] = without_password(value) if "://" in value else "***"


def _hide_urls(settings: dict[str, Any]) -> None:
    found = settings.get("urls") or []
    if found:
        given = found.split() if isinstance(found, str) else found if isinstance(found, list) else [found]
        settings["urls"] = [redacted_url(str(one)) for one in given]


def local_time(moment: datetime | None) -> str:
    """Format a time of the server as local time: only the time of day if it is today, otherwise also the date."""
    if moment is None:
        return "-"
    here = moment.astimezone()
    today = here.date() == datetime.now().astimezone().date()
    return f"{here:%H:%M:%S}" if today else f"{here:%Y-%m-%d %H:%M}"


def duration(seconds: float | None) -> str:
    """Format a duration: in milliseconds if it is short, as h:mm:ss if it is long.

    >>> duration(0.0123), duration(12.34), duration(3725), duration(None)
    ('12 ms', '12.3 s', '1:02:05', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 600 else str(timedelta(seconds=round(seconds)))


def size(count: float | None) -> str:
    """Format a number of bytes.

    >>> size(999), size(1_250_000), size(None)
    ('999 B', '1.2 MiB', '-')
    """
    if count is None:
        return "-"
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def peak(count: float | None) -> str:
    """Format the peak memory of a command.

    Below the size of the program that starts commands, the kernel's figure is an upper bound.

    >>> peak(11 * 1024**2), peak(1024**3), peak(None)
    ('at most 11.0 MiB', '1.0 GiB', '-')
    """
    return bounded(size(count), count)


def bounded(text: str, peak_bytes: float | None) -> str:
    """Mark a formatted peak memory as an upper bound where it is one; see `peak`."""
    return f"at most {text}" if peak_bytes is not None and peak_bytes < STARTER_BYTES_MAX else text


def share(value: float | None) -> str:
    """Format a share as a percentage."""
    return "-" if value is None else f"{value:.1%}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return local_time(value) if isinstance(value, datetime) else plain(str(value))
