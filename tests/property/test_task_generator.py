"""Arguments of functions survive a real shell, for types and values of any kind."""

from __future__ import annotations

import datetime as dt
import enum
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Optional, Union
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobmon.core.task_generator import TaskGenerator
from jobmon.core.task_generator.words import named_texts, quoted, unquoted

SHELLS = [shell for shell in ("/bin/sh", *map(shutil.which, ("bash", "dash", "zsh", "fish", "csh"))) if shell]
EVIL = "-x 'y' \"z\" $(id) `id` ${HOME} {x} {{ 100%s %41 ~ * ? ! # ; & | < > \\ \t\r\n é 𝄞 \u2028 ﷺ"


class Color(enum.Enum):
    RED = 1
    GREEN = "two words"


class Permission(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Point:
    x: float
    label: str = ""


@dataclass
class Tree:
    point: Point
    color: Color | None
    children: list[Tree] = field(default_factory=list)
    depth: int = field(init=False, default=0)

    def __post_init__(self):
        self.depth = 1 + max((child.depth for child in self.children), default=0)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.just(EVIL)
ZONES = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(minutes=-210)), ZoneInfo("Europe/Berlin")])
POINTS = st.builds(Point, st.floats(), TEXT)
TREES = st.recursive(
    st.builds(Tree, POINTS, st.none() | st.sampled_from(Color)),
    lambda trees: st.builds(Tree, POINTS, st.none() | st.sampled_from(Color), st.lists(trees, max_size=2)),
    max_leaves=4,
)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats()),
    (str, TEXT),
    (bool, st.booleans()),
    (None, st.none()),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=ZONES)),
    (Path, st.builds(Path, TEXT)),
    (PurePosixPath, st.builds(PurePosixPath, TEXT)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Permission, st.sampled_from([Permission(0), *Permission, Permission.READ | Permission.WRITE])),
    (Literal["a", 1, True, None], st.sampled_from(["a", 1, True, None])),
    (Point, POINTS),
    (Fraction, st.fractions()),
]
SERIALIZERS = {Fraction: (str, Fraction)}
HASHABLE = st.sampled_from([leaf for leaf in LEAVES if leaf[0] is not Permission])
Typed = tuple[Any, st.SearchStrategy[Any]]


def _collections(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.one_of(
        inner.map(lambda t: (list[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (tuple[t[0], ...], st.lists(t[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(lambda ts: (tuple[ts[0][0], ts[1][0]], st.tuples(ts[0][1], ts[1][1]))),
        HASHABLE.map(lambda t: (set[t[0]], st.sets(t[1], max_size=3))),
        HASHABLE.map(lambda t: (frozenset[t[0]], st.frozensets(t[1], max_size=3))),
        st.tuples(HASHABLE, inner).map(
            lambda ts: (dict[ts[0][0], ts[1][0]], st.dictionaries(ts[0][1], ts[1][1], max_size=3))
        ),
        inner.map(lambda t: (Optional[t[0]], st.none() | t[1])),  # noqa: UP045 - both spellings are meant
        st.tuples(inner, inner).map(lambda ts: (Union[ts[0][0], ts[1][0]], ts[0][1] | ts[1][1])),  # noqa: UP007
    )


TYPED = st.recursive(st.sampled_from([*LEAVES, (Tree, TREES)]), _collections, max_leaves=4)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """A type and a value of it."""
    annotation, values = draw(TYPED)
    return annotation, draw(values)


def canonical(value: object) -> str:
    """Everything that can be seen of a value: its type, floats to the last digit, the order of dictionaries."""
    if isinstance(value, set | frozenset):
        inside = ", ".join(sorted(map(canonical, value)))
    elif isinstance(value, list | tuple):
        inside = ", ".join(map(canonical, value))
    elif isinstance(value, dict):
        inside = ", ".join(f"{canonical(key)}: {canonical(item)}" for key, item in value.items())
    else:
        inside = repr(value)
    return f"{type(value).__name__}({inside})"


def generator_of(annotation: Any) -> tuple[TaskGenerator, list[Any]]:
    """A function of one parameter, and where it puts what it is given."""
    received: list[Any] = []

    def function(x):
        received.append(x)

    function.__qualname__ = "function"
    function.__annotations__ = {"x": annotation}
    return TaskGenerator(function, SERIALIZERS, tool_name="t"), received


def words_from(shell: str, command: str) -> list[str]:
    """Return how the shell interprets the words after the interpreter."""
    assert command.startswith(f"{sys.executable} ")
    printed = subprocess.run(
        [shell, "-c", f"printf '%s\\n' {command.removeprefix(sys.executable)}"], capture_output=True, check=True
    )
    return printed.stdout.decode().split("\n")[:-1]


@given(typed_values())
@example((str, EVIL))
@example((list[str], [EVIL, "", "-"]))
@example((dict[str, float], {EVIL: float("nan"), "{}": -0.0}))
@example((str | dt.date | None, "2020-01-01"))
@example((float | int, 1))
@example((int | float, 1.0))
@example((list[float] | list[int], [1]))
@example((dt.datetime, dt.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))))
def test_every_value_comes_back_exactly_through_a_real_shell(typed):
    annotation, value = typed
    generator, received = generator_of(annotation)
    words = words_from("/bin/sh", generator.create_task(x=value).command)
    generator.run(words[words.index("--args") + 1 :])
    assert [canonical(each) for each in received] == [canonical(value)]


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=15)
@given(TEXT)
def test_no_shell_of_this_machine_misreads_a_text(shell, text):
    generator, _ = generator_of(str)
    words = words_from(shell, generator.create_task(x=text).command)
    assert named_texts(words[words.index("--args") + 1 :]) == {"x": text}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quoting_can_be_undone(text):
    assert quoted(text).isascii()
    assert unquoted(quoted(text)) == text


@given(typed_values())
def test_a_value_is_one_value_where_it_fits_the_type(typed):
    """`create_tasks` tells a value from a list of values by the type alone."""
    annotation, value = typed
    generator, _ = generator_of(annotation)
    (task,) = generator.create_tasks(x=value)
    assert task.node_digest == generator.create_task(x=value).node_digest


@given(st.lists(st.integers() | TEXT).flatmap(lambda items: st.tuples(st.just(items), st.permutations(items))))
def test_equal_sets_make_equal_tasks(orders):
    generator, _ = generator_of(set[int | str])
    one, other = (generator.create_task(x=set(order)) for order in orders)
    assert one.node_digest == other.node_digest
