"""Dependencies that files imply, against a model that compares all files of all tasks with each other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent import patterns
from jobmon.core.exceptions import CyclicGraphError, DuplicateOutputError
from jobmon.core.files import Files, Pattern, Upstreams, Writers, checked_patterns, path_of

CHARACTERS = "ab."
NAME_CHARACTERS_MAX = 8
#: All names of up to four characters; longer ones are of no other kind for patterns this short.
NAMES = ["".join(each) for n in range(1, 5) for each in itertools.product(CHARACTERS, repeat=n)]

short_patterns = st.text(alphabet="ab.*", min_size=1, max_size=3)
steps = st.sampled_from(["a", "b", "a*", "*", "*b", "a.b"])
paths = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end, st.lists(steps, min_size=1, max_size=3), st.sampled_from(["", "/"])
)
files = st.lists(
    st.builds(lambda i, o: Files(tuple(i), tuple(o)), st.lists(paths, max_size=3), st.lists(paths, max_size=2))
)


def _matches(name: str, pattern: str) -> bool:
    """The definition, one character after another."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_matches(name[at:], pattern[1:]) for at in range(len(name) + 1))
    return bool(name) and name[0] == pattern[0] and _matches(name[1:], pattern[1:])


@given(st.text(alphabet=CHARACTERS, min_size=1, max_size=NAME_CHARACTERS_MAX), st.text(alphabet="ab.*", min_size=1))
def test_a_name_matches_a_pattern_as_in_a_shell(name, pattern):
    is_hidden = name.startswith(".") and not pattern.startswith(".")
    assert patterns.matches(name, pattern) == (_matches(name, pattern) and not is_hidden)


@given(short_patterns, short_patterns)
def test_patterns_overlap_if_a_name_matches_both(one, other):
    both = [
        name for name in [*NAMES, *_joined(one, other)] if patterns.matches(name, one) and patterns.matches(name, other)
    ]
    assert patterns.overlap(one, other) == patterns.overlap(other, one) == bool(both)


def _joined(one: str, other: str) -> list[str]:
    """Names that are long enough to contain the beginning of one pattern and the end of the other."""
    return [(a + b).replace("*", fill) for a, b in ((one, other), (other, one)) for fill in ("", "a")]


def _covers(output: str, wanted: str) -> bool:
    """The definition: the same path, or one of the two is a folder that contains the other."""
    mine, theirs = output.strip("/").split("/"), wanted.strip("/").split("/")
    common = all(patterns.overlap(a, b) for a, b in zip(mine, theirs, strict=False))
    if len(mine) == len(theirs):
        return common
    return common and (output if len(mine) < len(theirs) else wanted).endswith("/")


def _duplicate(tasks: list[Files]) -> bool:
    pairs = {(path, at) for at, each in enumerate(tasks) for path in each.outputs}
    return len(pairs) > len({path for path, _ in pairs})


@given(files)
def test_a_task_depends_on_exactly_the_tasks_that_write_its_inputs(tasks):
    own = any(set(each.inputs) & set(each.outputs) for each in tasks)
    if _duplicate(tasks):
        with pytest.raises(DuplicateOutputError, match="both write"):
            Upstreams(tasks, str)
        return
    if own:
        with pytest.raises(CyclicGraphError, match="both as an input and as an output"):
            Upstreams(tasks, str)
        return
    found = Upstreams(tasks, str)
    for at, each in enumerate(tasks):
        wanted = {
            other
            for other, writer in enumerate(tasks)
            if other != at and any(_covers(output, path) for output in writer.outputs for path in each.inputs)
        }
        assert found.of(at) == wanted
        assert all(f"/{found.path_between(other, at)}" in each.inputs for other in wanted)


@given(st.lists(paths, unique=True), paths)
def test_equal_inputs_share_one_set(outputs, wanted):
    writers = Writers([[path] for path in outputs], str)
    assert writers.of(wanted) is writers.of("".join(wanted))


texts = st.text(alphabet="ab/.{} *", max_size=6)


@given(st.text(alphabet="ab/.{}*!:x", max_size=8), texts, texts)
def test_a_pattern_is_rejected_or_gives_a_normal_path(pattern, a, b):
    problem = ""
    path = "/"
    try:
        [found] = checked_patterns("t", "inputs", [pattern], ["a", "b"])
        assert found == Pattern("", pattern)
        path = path_of(found.text, {"a": a, "b": b}, "/project")
    except ValueError as error:
        problem = str(error)
    assert not problem or "inputs of task template 't'" in problem or "gives an empty path" in problem
    assert path.startswith("/")
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))


@given(st.text(alphabet="ab", min_size=1, max_size=4), st.text(alphabet="ab", min_size=1, max_size=4))
def test_arguments_are_inserted_as_they_are(a, b):
    [found] = checked_patterns("t", "outputs", ["{{{a}}}/x{b}.csv"], ["a", "b"])
    assert path_of(found.text, {"a": a, "b": b}, "/project/../w") == f"/w/{{{a}}}/x{b}.csv"
