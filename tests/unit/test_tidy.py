"""The house rules that a program can check. Each failure names the file and line and says what to do instead."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "jobmon"
MAP = ROOT / "docs" / "explanation" / "architecture.md"

FILE_BYTES_MAX = 1024 * 1024
FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70
PACKAGE_DOC_LINES_MAX = 10

#: Exceptions have a name and a reason: "path" or "path::function" below src/jobmon -> why it is better long.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

#: The only homes of bare status letters.
LETTERS_AT_HOME = {SRC / "core" / "constants.py", SRC / "core" / "fsm.py"}
#: Folders that hold no source of ours.
FOREIGN = {"node_modules", "__pycache__", "static", "results"}
PROMISE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@cache
def python_files() -> list[Path]:
    return sorted(path for path in SRC.rglob("*.py") if not FOREIGN & set(path.parts))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def tree() -> list[Path]:
    """Every file of ours: the top of the checkout and its source folders."""
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".coverage"]
    for folder in ("src", "tests", "docs", "examples", "benchmarks", "newsfragments", "ui", ".ci"):
        for here, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name not in FOREIGN - {"static"}]
            files += [Path(here, name) for name in names]
    return files


def at(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


# --- what code may not say --------------------------------------------------------------------------------------------


def prints(module: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node


def test_only_the_command_line_prints():
    """Elsewhere: log, return a value or raise."""
    found = [
        at(path, call) for path in python_files() if SRC / "cli" not in path.parents for call in prints(parsed(path))
    ]
    assert found == []


def is_status(node: ast.expr) -> bool:
    """Whether an expression is called a status: `status`, `task.status`, `row["status"]`, `status.value`."""
    name = ""
    match node:
        case ast.Attribute(attr="value", value=inner):
            return is_status(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            pass
    return "status" in name.lower()


def is_letter(node: ast.expr) -> bool:
    """Whether an expression is a one-letter string, or holds one."""
    match node:
        case ast.Constant(value=str(text)):
            return len(text) == 1
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(is_letter(item) for item in items)
        case ast.Call(args=items):
            return any(is_letter(item) for item in items)
    return False


def letters_compared(module: ast.Module) -> Iterator[ast.AST]:
    """Comparisons, `in` and `match` of a status with a bare letter."""
    for node in ast.walk(module):
        match node:
            case ast.Compare(left=left, comparators=others):
                sides = [left, *others]
                if any(map(is_status, sides)) and any(map(is_letter, sides)):
                    yield node
            case ast.Match(subject=subject, cases=cases) if is_status(subject):
                patterns = [pattern for case in cases for pattern in ast.walk(case.pattern)]
                if any(isinstance(pattern, ast.MatchValue) and is_letter(pattern.value) for pattern in patterns):
                    yield node


def test_no_status_is_compared_with_a_bare_letter():
    """Name the state: `TaskStatus.DONE`. The letters are written in core/constants.py and read in core/fsm.py."""
    found = [
        at(path, node)
        for path in python_files()
        if path not in LETTERS_AT_HOME
        for node in letters_compared(parsed(path))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('status == "D"', 1),
        ('"D" != task.status', 1),
        ('row["status"] in ("D", "F")', 1),
        ('task.final_status.value not in {"D"}', 1),
        ('run_status in frozenset(("D",))', 1),
        ('match status:\n    case "D" | "F":\n        pass', 1),
        ('status == "done"', 0),
        ("status == TaskStatus.DONE", 0),
        ('name == "D"', 0),
    ],
)
def test_the_search_for_letters_finds_what_it_should(code, expected):
    assert len(list(letters_compared(ast.parse(code)))) == expected


#: Where several statuses are no set of the state machines, or not yet.
STATUSES_TOGETHER = {
    "client/progress.py": "groups that people see",
    "client/workflow_run.py": "two steps, one after the other",
}
STATUS_CLASSES = {"TaskStatus", "TaskInstanceStatus", "WorkflowRunStatus", "WorkflowStatus", "TI", "_TI"}


def names_a_status(node: ast.AST) -> bool:
    while isinstance(node, ast.Attribute) and node.attr == "value":
        node = node.value
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in STATUS_CLASSES


def sets_of_statuses(module: ast.Module) -> Iterator[ast.AST]:
    """Yield literals of several statuses, statuses built from letters, and look-ups in the table of final ones."""
    for node in ast.walk(module):
        match node:
            case ast.Tuple(elts=items) | ast.Set(elts=items) | ast.List(elts=items):
                if len(items) > 1 and all(map(names_a_status, items)):
                    yield node
            case ast.Call(func=ast.Name(id="map"), args=[ast.Name(id=name), *_]) if name in STATUS_CLASSES:
                yield node
            case ast.Subscript(value=ast.Attribute(attr="TERMINAL")):
                yield node


def test_sets_of_statuses_are_named_in_the_state_machines():
    """Name the set in core/fsm.py and ask for it: `status in fsm.TAKEN`."""
    found = [
        at(path, node)
        for path in python_files()
        if path.is_relative_to(SRC) and path not in LETTERS_AT_HOME
        if str(path.relative_to(SRC)) not in STATUSES_TOGETHER
        for node in sets_of_statuses(parsed(path))
    ]
    assert found == []
    unneeded = [name for name in STATUSES_TOGETHER if not list(sets_of_statuses(parsed(SRC / name)))]
    assert unneeded == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("status in (TaskStatus.DONE, TaskStatus.REMOVED)", 1),
        ("{TI.RUNNING.value, TI.DONE.value}", 1),
        ('frozenset(map(TaskInstanceStatus, "IOR"))', 1),
        ("sorted(fsm.TERMINAL[machine])", 1),
        ("status in (TaskStatus.DONE,)", 0),
        ("status in fsm.TAKEN", 0),
        ("(TaskStatus.DONE, name)", 0),
    ],
)
def test_the_search_for_sets_of_statuses_finds_what_it_should(code, expected):
    assert len(list(sets_of_statuses(ast.parse(code)))) == expected


#: Names of central concepts, each of which once meant several classes.
CONCEPTS = ("Attempt", "Batch", "Cluster", "Commands", "Machine", "Role", "Task", "Verdict")


def test_the_name_of_a_concept_belongs_to_at_most_one_class():
    """Give the other class a prefix that says what it is for, such as `AttemptDetail`."""
    found = Counter(
        node.name
        for path in python_files()
        if path.is_relative_to(SRC)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and node.name in CONCEPTS
    )
    assert {name: count for name, count in found.items() if count > 1} == {}
    assert found["Attempt"] == found["Task"] == 1


def test_no_promise_is_left_in_the_text():
    """Open an issue, or do it now."""
    found = []
    for path in tree():
        if path.suffix in {".py", ".md", ".ts", ".tsx", ".toml", ".yaml", ".css", ".html"} or path.name == "Makefile":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if PROMISE.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


# --- size -------------------------------------------------------------------------------------------------------------


def test_no_file_is_large():
    """Data sets and pictures of more than a megabyte do not belong into the repository."""
    assert [str(path.relative_to(ROOT)) for path in tree() if path.stat().st_size > FILE_BYTES_MAX] == []


def test_no_module_is_long():
    """A file of this length holds two things. Or name it in LONG_FILES with the reason."""
    long = {
        str(path.relative_to(SRC))
        for path in python_files()
        if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES_MAX
    }
    assert long == set(LONG_FILES)


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_function_is_long():
    """Keep the branching in the parent and make the leaves pure. Or name it in LONG_FUNCTIONS with the reason."""
    long = {
        f"{path.relative_to(SRC)}::{function.name}"
        for path in python_files()
        if "versions" not in path.parts  # migrations are lists of columns
        for function in functions(parsed(path))
        if function.end_lineno - function.lineno + 1 > FUNCTION_LINES_MAX
    }
    assert long == set(LONG_FUNCTIONS)


# --- the map ----------------------------------------------------------------------------------------------------------


def test_every_package_says_what_it_is():
    """In at most ten lines: what it is, what it may import, where to start."""
    silent = []
    for path in python_files():
        if path.name == "__init__.py":
            doc = ast.get_docstring(parsed(path)) or ""
            if not 0 < len(doc.splitlines()) <= PACKAGE_DOC_LINES_MAX:
                silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_every_part_is_on_the_map():
    parts = [
        path.name
        for path in sorted(SRC.iterdir())
        if not path.name.startswith("__")
        if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
    ]
    text = MAP.read_text(encoding="utf-8")
    assert [name for name in parts if f"src/jobmon/{name}" not in text] == []


def test_every_link_between_files_leads_somewhere():
    broken = []
    for path in tree():
        if path.suffix == ".md":
            text = FENCE.sub("", path.read_text(encoding="utf-8"))
            broken += [
                f"{path.relative_to(ROOT)} -> {link}"
                for link in LINK.findall(text)
                if not (path.parent / link).exists()
            ]
    assert broken == []


def test_every_tier_says_what_belongs_there():
    tiers = [path for path in sorted((ROOT / "tests").iterdir()) if path.is_dir() and path.name != "__pycache__"]
    assert [tier.name for tier in tiers if not (tier / "README.md").exists()] == []
