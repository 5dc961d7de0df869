"""Write lists: as a table with a limit and a pager, as JSON that is streamed while it is read, or as CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.core.descriptors import is_terminal
from jobmon.core.terminal import plain
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TABLE, JSON, CSV = "table", "json", "csv"
LIMIT_DEFAULT: Final = 25
ROWS: Final = click.option(
    "-o", "--output", type=click.Choice([TABLE, JSON, CSV]), default=TABLE, show_default=True, help="Output format."
)
#: No list is longer.
ROWS_MAX: Final = 2**31 - 1
LIMIT: Final = click.option(
    "-l",
    "--limit",
    type=click.IntRange(min=0, max=ROWS_MAX),
    help=f"Show at most N; 0 for all. Default: {LIMIT_DEFAULT} in a table, all in JSON and CSV.",
    metavar="N",
)


def rows_max(limit: int | None, output: str) -> int | None:
    """Return how many rows to show; None means all."""
    if limit is None:
        return LIMIT_DEFAULT if output == TABLE else None
    return limit or None


def note_limit(
    shown: int, total: int | None, what: str, *, at_least: bool = False, rows_max: int | None = None
) -> None:
    """Print on standard error how many of the rows are shown, if not all are.

    Args:
        shown: number of rows that are shown.
        total: number of all rows; None if it is unknown.
        what: what a row is.
        at_least: whether there may be more than the total.
        rows_max: maximum number of rows of the command; None means no maximum.
    """
    if total is None or (shown >= total and not at_least):
        return
    which = f"at least {number_of(total, what)}" if at_least else number_of(total, what)
    remedy = "use -l 0 for all" if rows_max is None else f"use -l 0 for up to {rows_max:,}"
    is_full = rows_max is not None and shown >= rows_max
    click.echo(f"{shown:,} of {which} shown{'' if is_full else f'; {remedy}'}.", err=True)


def show_rows(rows: Iterable[Mapping[str, Any]], output: str) -> int:
    """Write rows as JSON or CSV as they arrive; return how many."""
    return _show_json(rows) if output == JSON else _show_csv(rows)


def _show_json(rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for count, row in enumerate(rows, 1):
        text = json.dumps(row, indent=2).replace("\n", "\n  ")
        click.echo(("[\n  " if count == 1 else ",\n  ") + text, nl=False)
    click.echo("\n]" if count else "[]")
    return count


def _show_csv(rows: Iterable[Mapping[str, Any]]) -> int:
    writer, count = None, 0
    for row in rows:
        count += 1
        flat = {name: csv_cell(value) for name, value in row.items()}
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(flat), lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
        writer.writerow(flat)
    return count


def csv_cell(value: Any) -> Any:
    """Return a value for CSV: control characters are visible, and no spreadsheet takes a text for a formula.

    >>> csv_cell("=1+1"), csv_cell(True), csv_cell([1]), csv_cell(-1)
    ("'=1+1", 'true', '[1]', -1)
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


class _Page(io.StringIO):
    """A buffer for the output. To code that draws tables, it looks like the terminal."""

    def isatty(self) -> bool:
        """Return what the terminal would return."""
        return True

    def fileno(self) -> int:
        """Return the terminal's descriptor, which determines the width."""
        return sys.__stdout__.fileno() if sys.__stdout__ is not None else 1


@contextlib.contextmanager
def paged() -> Iterator[None]:
    """Show the output of the block in a pager if it is longer than the terminal."""
    if not is_terminal(sys.stdout) or os.environ.get("TERM") == "dumb":
        yield
        return
    page = _Page()
    with contextlib.redirect_stdout(page):
        yield
    text = plain(page.getvalue())
    if text.count("\n") < shutil.get_terminal_size().lines:
        click.echo(text, nl=False)
        return
    os.environ.setdefault("LESS", "FRX")  # as in git: exit if it fits, keep colors, do not clear the screen
    click.echo_via_pager(text)


def named(rows: Iterable[Any], names: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Convert messages to rows, with the name of its status after each field of `names`.

    Args:
        rows: messages.
        names: field -> enumeration of the letters in this field.
    """
    import msgspec

    for row in rows:
        found: dict[str, Any] = {}
        for field, value in msgspec.to_builtins(row).items():
            found[field] = value
            if field in names:
                found[f"{field}_name"] = names[field](value).name
        yield found


def argument_columns(arguments: Sequence[Mapping[str, str]], columns_max: int) -> list[str] | None:
    """Return the names of the arguments that get their own column; None if there are too many."""
    names = list(dict.fromkeys(name for one in arguments for name in one))
    return names if len(names) <= columns_max else None
