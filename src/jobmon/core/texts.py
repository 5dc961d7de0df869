"""Text that every database can store: no NUL characters, no unpaired surrogates, names of bounded length.

Code that takes text from a user rejects what cannot be stored. Code that takes text from a command, a file name or a
cluster replaces it, because what happened must be reported in any case.
"""

from __future__ import annotations

from typing import Final

NAME_CHARACTERS_MAX: Final = 255
#: A longer name or value is shortened where a sentence shows it.
SHOWN_CHARACTERS_MAX: Final = 60
#: Maximum length of the error text in a report; the log tail holds more of what the command wrote.
ERROR_CHARACTERS_MAX: Final = 10_000
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def checked_name(what: str, name: str) -> str:
    """Return a name that can be stored.

    Args:
        what: what it names, for the error: "The name of a tool".
        name: the name.

    Returns:
        The same name.

    Raises:
        ValueError: it is too long, or contains a character that cannot be stored.
    """
    if len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(
            f"{what} {name[:SHOWN_CHARACTERS_MAX]!r}... has {len(name)} characters; at most {NAME_CHARACTERS_MAX} are"
            " allowed."
        )
    return checked_text(what, name)


def checked_text(what: str, text: str) -> str:
    """Return a text of any length that can be stored.

    Args:
        what: what it is, for the error.
        text: the text.

    Returns:
        The same text.

    Raises:
        ValueError: it contains a NUL character or an unpaired surrogate.
    """
    if storable(text, len(text)) != text:
        shown = text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."
        raise ValueError(f"{what} {shown!r} contains a NUL character or bytes that are not UTF-8; remove them.")
    return text


def storable(text: str, characters_max: int = ERROR_CHARACTERS_MAX) -> str:
    """Return a text in which unstorable characters are replaced, cut to a maximum length.

    Args:
        text: any text.
        characters_max: the maximum length.
    """
    text = text[:characters_max].replace("\0", _REPLACEMENT)
    return text if text.isascii() else "".join(_REPLACEMENT if "\ud800" <= one <= "\udfff" else one for one in text)


def number_of(count: int, what: str) -> str:
    """Return a count with its noun: 1 task, 2 tasks.

    >>> number_of(1, "task"), number_of(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def rerun_with_edit(task_id: int, *options: str) -> str:
    """Return why a done task is not edited, and what to type instead.

    Args:
        task_id: the task.
        options: those of `jobmon task rerun` that make the edit.
    """
    words = " ".join(f"--{option}" if option == "reset" else f"--{option} ..." for option in options)
    return f"Task {task_id} is done. To run it with this edit: jobmon task rerun {task_id} {words}"


def shortened(text: str, characters_max: int) -> str:
    """Return a text with its middle omitted if it is too long, because names often differ only at their end.

    >>> shortened("align_data_2026_sample-17", 13)
    'align_…ple-17'
    """
    if len(text) <= characters_max:
        return text
    end = (characters_max - 1) // 2
    return f"{text[: characters_max - 1 - end]}…{text[len(text) - end :]}"
