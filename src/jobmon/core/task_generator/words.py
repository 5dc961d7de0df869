"""Words of a command line that no shell can misinterpret. Pure functions.

Text is percent-encoded, as in URLs: letters, digits and `_ . - / : , + @` represent themselves, and every other byte of
the UTF-8 text is `%` and two digits. No shell gives these characters a special meaning, whichever `worker_node.shell`
selects; quotation marks, however, are interpreted differently by sh, csh and fish. Neither the worker's locale nor the
braces of a command template can change them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Linux's limit for one argument of a program (MAX_ARG_STRLEN), and so for the whole command of a shell.
ARGUMENT_BYTES_MAX: Final = 131_071
#: A character has at most four bytes, and each byte takes three characters.
QUOTED_PER_CHARACTER_MAX: Final = 12
_HEX_DIGITS: Final = 2
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/:,+@")
_WORDS: Final = tuple(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in range(256))


def quoted(text: str) -> str:
    """Return a text in the safe alphabet.

    Raises:
        ValueError: the text is not valid Unicode.
    """
    if text.isalnum() and text.isascii():
        return text
    return "".join([_WORDS[byte] for byte in text.encode()])


def unquoted(word: str) -> str:
    """Return the text that was quoted.

    Raises:
        ValueError: the word is not the result of `quoted`.
    """
    first, *rest = word.split("%")
    try:
        parts = [bytes.fromhex(part[:_HEX_DIGITS]) + part[_HEX_DIGITS:].encode() for part in rest]
        if any(len(part) < _HEX_DIGITS for part in rest):
            raise ValueError("a percent sign stands alone")
        return (first.encode() + b"".join(parts)).decode()
    except ValueError as error:
        raise ValueError(f"{word!r} is not a quoted word: {error}.") from None


def named_texts(words: Iterable[str]) -> dict[str, str]:
    """Return the texts of words `name=quoted` by name.

    Raises:
        ValueError: a word does not have this form, or a name occurs twice.
    """
    texts: dict[str, str] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        if not equals:
            raise ValueError(f"The argument {word!r} is not of the form name=value.")
        if name in texts:
            raise ValueError(f"The argument {name!r} was passed twice.")
        texts[name] = unquoted(rest)
    return texts
