"""How an expansion is recorded: as a task of one template, whose command names the function. Pure."""

from __future__ import annotations

from typing import Final

#: The template of all expansions.
TEMPLATE_NAME: Final = "expansion"
COMMAND_TEMPLATE: Final = "expansion {expansion:q} {version:q} {function}"
#: Shown as the cause of an expansion's failure.
CALL_FAILED: Final = "its function failed"
#: Of a function that a script defines itself, which no other process can import.
_MAIN: Final = "__main__"


def function_text(function: object) -> str:
    """Return `module:function`. Objects that are called like functions are named by their class."""
    module = getattr(function, "__module__", None) or _MAIN
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}:{name.replace(' ', '')}"


def function_of(command: str) -> str:
    """Return the function in the command of an expansion, as `module:function`."""
    return command.rpartition(" ")[2]


def is_importable(function: str) -> bool:
    """Return whether another process might import a function: it is neither local nor part of a script."""
    module, _, name = function.partition(":")
    return (
        module != _MAIN and bool(name) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
    )
