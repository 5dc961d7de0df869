"""Every interpreter that we start ignores the current directory: no file there is imported or executed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import jobmon.client
from jobmon.client import task_generator
from jobmon.client.launching import distributor_command
from jobmon.client.wfformat import builder
from jobmon.plugins.batch.submission import worker_command

SOURCES = Path(jobmon.client.__file__).parents[1]
SAFE = {"-P", "-I"}
#: Where the interpreter becomes part of a text, and that text.
TEXTS = {
    "client/task_generator.py": task_generator._COMMAND.partition("{jobmon_python} ")[2],
    "client/wfformat/builder.py": builder.COMMAND_TEMPLATE.partition("{python} ")[2],
    "plugins/batch/cluster.py": worker_command("python", "worker.py").partition("python ")[2],
}
#: Where it is only named for people.
NAMED = {"cli/doctor.py": 1}


def _is_interpreter(node):
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"


def _uses(tree):
    """Yield, for each use of `sys.executable`, the items that follow it in its list, or None if it is not in a list."""
    in_lists = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            for place, item in enumerate(node.elts):
                if _is_interpreter(item):
                    in_lists.add(item)
                    after = node.elts[place + 1]
                    yield after.value if isinstance(after, ast.Constant) else ast.unparse(after)
    for node in ast.walk(tree):
        if _is_interpreter(node) and node not in in_lists:
            yield None


def _parsed(*words):
    """Yield name and syntax tree of each module that contains one of these words: to parse all takes seconds."""
    for path in SOURCES.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words):
            yield str(path.relative_to(SOURCES)), ast.parse(text)


def test_every_use_of_the_interpreter_is_safe():
    found = {name: uses for name, tree in _parsed("executable") if (uses := list(_uses(tree)))}
    assert {"client/launching.py", "core/access.py", "client/local_agents.py"} <= found.keys()
    for name, uses in found.items():
        outside_lists = [use for use in uses if use is None]
        assert {use for use in uses if use is not None} <= SAFE, name
        assert len(outside_lists) == NAMED.get(name, 0) + (name in TEXTS), name


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_with_the_interpreter_is_safe(name):
    assert TEXTS[name].split()[0] in SAFE


def test_no_interpreter_is_started_by_another_name():
    """Neither one that a search path resolves, nor the one behind a virtual environment."""
    names = ("python", "python3")
    found = set()
    for name, tree in _parsed(*(f"{quote}{word}{quote}" for word in names for quote in "'\""), "_base_executable"):
        for node in ast.walk(tree):
            is_word = isinstance(node, ast.Constant) and node.value in names
            if is_word or (isinstance(node, ast.Attribute) and node.attr == "_base_executable"):
                found.add(name)
    assert found <= TEXTS.keys()  # as the name of an argument or a setting


def test_the_distributor_is_started_safely():
    assert distributor_command(1)[:2] == [sys.executable, "-P"]
