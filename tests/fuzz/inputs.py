"""Inputs for fuzzing: seeds that are cut, repeated, spliced or damaged, and arbitrary bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

BYTES_MAX = 4_000
#: What parsers have stumbled over.
PIECES = (
    *(
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xe2\x80\xae",
        b"\x1b[",
        b"9" * 400,
        b"-1",
        b"0x1",
    ),
    *(
        b"[" * 300,
        b'{"a":' * 300,
        b"1e999",
        b"NaN",
        b"null",
        b'""',
        b"[]",
        b"{}",
        b"true",
        b":",
        b";",
        b"|",
        b",",
        b" ",
    ),
    *(
        b"content-length: ",
        b"transfer-encoding: chunked\r\n",
        b"HTTP/1.1 ",
        b"ffffffffffffffff\r\n",
        b"%00",
        b"%",
        b"\xd9\xa3",
    ),
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed into which something was written, in place of some bytes or between them; several times."""
    content = draw(st.sampled_from(list(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12), st.sampled_from(list(seeds))))
        content = content[:start] + piece + content[draw(st.sampled_from([start, end])) :]
    return content[:BYTES_MAX]


def inputs(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Inputs for a target with these seeds."""
    return st.one_of(
        damaged(seeds), st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), st.binary(max_size=200)
    )
