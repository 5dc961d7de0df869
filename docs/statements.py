"""The texts of the server's statements for SQLite, which `docs/generate.py` writes to `server/texts.jsonl`.

Families of statements are written for every combination of arguments whose values are known from their annotations.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import typing
from enum import Enum
from typing import Any, Final

import msgspec
from sqlalchemy import create_mock_engine
from sqlalchemy.exc import SQLAlchemyError

import jobmon.server
from jobmon.server import elements, texts
from jobmon.server.models import TABLES
from jobmon.server.models.tables import metadata
from jobmon.server.queries import monitoring
from jobmon.server.recording import digest, real
from jobmon.server.sql import Statement

if typing.TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

#: Values of parameters that are texts.
_SIDES: Final = ("upstream", "downstream")
#: Rarely used: a statement for each table would be half of the file.
_COMPILED_WHEN_USED: Final = ("jobmon.server.usecases.purging",)


def modules() -> Iterator[ModuleType]:
    """Return the modules of the server."""
    for found in pkgutil.walk_packages(jobmon.server.__path__, "jobmon.server."):
        if ".migrations." not in found.name and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def statements() -> dict[str, Statement]:
    """Return all statements, including the members of families, by their names."""
    found: dict[str, Statement] = {}
    for module in modules():
        short = module.__name__.removeprefix("jobmon.server.")
        for name, value in vars(module).items():
            if isinstance(value, Statement):
                found[f"{short}.{name}"] = value
            elif inspect.isroutine(getattr(value, "__wrapped__", None)) and "family" in vars(value):
                found |= {f"{short}.{name}({shown})": one for shown, one in _members(value, module)}
    usual = enumerate(monitoring.usual_lists())
    return found | {f"queries.monitoring.usual_lists {number}": one for number, one in usual}


def _members(family: Any, module: ModuleType) -> Iterator[tuple[str, Statement]]:
    parameters = inspect.signature(family.family).parameters
    values = [_values_of(str(one.annotation), module) for one in parameters.values()]
    for chosen in itertools.product(*values):
        named = dict(zip(parameters, chosen, strict=True))
        shown = ", ".join(str(getattr(one, "name", one)) for one in chosen)
        only_named = {name: value for name, value in named.items() if parameters[name].kind.name == "KEYWORD_ONLY"}
        yield shown, family(*(value for name, value in named.items() if name not in only_named), **only_named)


def _values_of(annotation: str, module: ModuleType) -> list[Any]:
    """Return the values that an argument may have; none if they are not known."""
    if annotation == "bool":
        return [False, True]
    if annotation == "str":
        return list(_SIDES)
    if annotation == "Table":
        return [] if module.__name__ in _COMPILED_WHEN_USED else list(TABLES.values())
    kind = eval(annotation, vars(typing) | vars(module)) if annotation.startswith("Literal") else None
    kind = kind or getattr(module, annotation, None)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)
    return list(typing.get_args(kind))


def texts_of_statements() -> str:
    """Return the content of the file."""
    encoder = msgspec.json.Encoder()
    lines: list[texts.Line] = []
    first = texts.Line(of="", digest=texts.sources_digest(), schema=schema())
    seen: set[str] = set()
    for name, statement in statements().items():
        try:
            recorded = statement.build()
        except KeyError:
            if "(" not in name:
                raise
            continue  # a family that has no statement for this value
        try:
            text = elements.compiled(real(recorded), texts.DIALECT, statement.names)
        except (SQLAlchemyError, AttributeError, KeyError):
            if name.rstrip(")").rpartition("(")[2] not in TABLES:
                raise
            continue  # a family that has no statement for this table
        key = digest(recorded, statement.names)
        if key is not None and key not in seen:
            seen.add(key)
            lines.append(texts.Line(of=name, digest=key, text=text))
    lines.sort(key=lambda line: line.of)
    return "".join(encoder.encode(line).decode() + "\n" for line in (first, *lines))


def schema() -> list[str]:
    """Return the statements that create all tables of a new SQLite database."""
    found: list[str] = []
    engine: Any = create_mock_engine(
        "sqlite://", lambda statement, *_, **__: found.append(str(statement.compile(dialect=engine.dialect)))
    )
    metadata.create_all(engine, checkfirst=False)
    tables = [text for text in found if text.lstrip().startswith("CREATE TABLE")]
    return [*tables, *sorted(text for text in found if text not in tables)]  # the order of indexes is that of a set
