"""Prevent untrusted text from controlling a terminal: control characters are replaced by visible symbols."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters that change the writing direction, so that a text reads differently than it is, and unusual line ends.
DIRECTIONS: Final = frozenset({0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)})
_PICTURES: Final = 0x2400
_REPLACEMENT: Final = 0xFFFD
#: Control characters (except tabs and line ends) become pictures; the upper half, and directions, are replaced.
_VISIBLE: Final = {
    **{code: _PICTURES + code for code in range(32) if code not in (9, 10)},
    127: _PICTURES + 33,
    **dict.fromkeys((*range(128, 160), *DIRECTIONS), _REPLACEMENT),
}


def plain(text: str) -> str:
    r"""Return a text whose control characters are visible symbols; tabs and line ends are kept.

    >>> plain("a\x1b[31mb")
    'a␛[31mb'
    """
    return text if text.isascii() and text.isprintable() else text.translate(_VISIBLE)


def plain_line(text: str) -> str:
    r"""Return a plain text of a single line: tabs and line ends are visible symbols as well.

    >>> plain_line("a\nb")
    'a␊b'
    """
    return plain(text).replace("\t", "␉").replace("\n", "␊")


class PlainStream:
    """A text stream that lets only plain text through. It has no `buffer`, which would bypass the filter.

    Args:
        stream: where the text is written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str | bytes) -> int:
        """Write a text (click writes some as bytes); return its length."""
        self.unguarded.write(plain(text if isinstance(text, str) else text.decode(errors="replace")))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write lines."""
        self.unguarded.writelines(map(plain, lines))

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.unguarded, name)


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream behind a plain one, for code that draws; it must write plain text itself."""
    return cast("TextIO", getattr(stream, "unguarded", stream))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Let only plain text through standard output and standard error."""
    before = sys.stdout, sys.stderr
    guards = [stream and PlainStream(stream) for stream in before]
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", guards)
    try:
        yield
    finally:
        # code that replaced a stream in the meantime may still need its replacement
        sys.stdout, sys.stderr = (
            old if now is guard else now
            for old, guard, now in zip(before, guards, (sys.stdout, sys.stderr), strict=True)
        )
