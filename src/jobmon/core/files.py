"""Files that a template declares as inputs and outputs: their patterns, and the dependencies that they imply. Pure.

A pattern is a path in which `{name}` is replaced by the text of a node arg or task arg. Relative paths start at the
working folder of the workflow. `*` stands for any number of characters of a name; at least one file must match. A
trailing "/" means a folder. Paths are compared as text: symbolic links are not followed.

A task depends on the tasks that write its inputs: an output is the same path, may be the same path because of `*`, or
one of the two is a folder that contains the other.
"""

from __future__ import annotations

import difflib
import string
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from posixpath import normpath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.agent.patterns import WILDCARD, overlap, shown
from jobmon.core.exceptions import CyclicGraphError, DuplicateOutputError
from jobmon.core.texts import checked_name, checked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Maximum number of inputs, and of outputs, of a template.
PATTERNS_MAX: Final = 100
FILES_PER_ATTEMPT_MAX: Final = 2 * PATTERNS_MAX
#: Maximum length of a pattern, and of the path that it gives: that of Linux (PATH_MAX).
PATH_CHARACTERS_MAX: Final = 4_096
#: Maximum length of all paths of a task together.
TASK_CHARACTERS_MAX: Final = 20_000
#: Number of patterns whose parts are kept; a pattern gives the paths of many tasks.
PATTERNS_PARSED_MAX: Final = 1_000
FOLDER: Final = "/"
_NOTHING: Final[frozenset[int]] = frozenset()


class Pattern(NamedTuple):
    """A declared file. `name` is "" in a list of patterns."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """The inputs and outputs of a template."""

    inputs: tuple[Pattern, ...] = ()
    outputs: tuple[Pattern, ...] = ()

    def __bool__(self) -> bool:
        """Return whether any file is declared."""
        return bool(self.inputs or self.outputs)


NO_FILES: Final = Declaration()


class Files(NamedTuple):
    """The files of one task, as absolute paths."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


# -- patterns ------------------------------------------------------------------------------------------------------


def checked_patterns(
    template_name: str, kind: str, given: Any, data_args: Iterable[str], op_args: Iterable[str] = ()
) -> tuple[Pattern, ...]:
    """Return the declared inputs or outputs of a template.

    Args:
        template_name: name of the template, for messages.
        kind: "inputs" or "outputs", for messages.
        given: a list of patterns, or {name: pattern}.
        data_args: names of the node args and task args.
        op_args: names of the op args, which patterns must not use.

    Raises:
        ValueError: a pattern is invalid; the message names it.
    """
    where = f"{kind} of task template {template_name!r}"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"{where} must be a list of patterns or a dict of names and patterns, not {given!r}.")
    pairs = list(given.items()) if isinstance(given, Mapping) else [("", text) for text in given]
    if len(pairs) > PATTERNS_MAX:
        raise ValueError(f"{where}: at most {PATTERNS_MAX} patterns are allowed, not {len(pairs)}.")
    data_args, op_args = frozenset(data_args), frozenset(op_args)
    found = []
    for name, text in pairs:
        if not isinstance(name, str) or (isinstance(given, Mapping) and not name):
            raise ValueError(f"{where}: the name of a pattern must be a non-empty string, not {name!r}.")
        if not isinstance(text, str) or not text:
            raise ValueError(f"{where}: a pattern must be a non-empty string, not {text!r}.")
        checked_name(f"{where}: the name", name)
        checked_text(f"{where}: the pattern", text)
        _check_fields(where, text, data_args, op_args)
        found.append(Pattern(name, text))
    return tuple(found)


def _check_fields(where: str, text: str, data_args: frozenset[str], op_args: frozenset[str]) -> None:
    if len(text) > PATH_CHARACTERS_MAX:
        raise ValueError(f"{where}: the pattern {text[:40]!r}... is longer than {PATH_CHARACTERS_MAX} characters.")
    try:
        fields = [one for one in string.Formatter().parse(text) if one[1] is not None]
    except ValueError as error:
        raise ValueError(
            f"{where}: the pattern {text!r} cannot be read: {error}. Write {{{{ and }}}} for braces of a path."
        ) from None
    for _, name, specification, conversion in fields:
        if name in op_args:
            raise ValueError(
                f"{where}: the pattern {text!r} uses the op arg {name!r}, but op args do not identify data; declare"
                f" {name!r} in node_args or task_args."
            )
        if name not in data_args:
            near = difflib.get_close_matches(str(name), data_args, n=1)
            known = ", ".join(map(repr, sorted(data_args))) or "none"
            hint = f"; did you mean {{{near[0]}}}?" if near else f"; its node args and task args are: {known}."
            raise ValueError(f"{where}: the pattern {text!r} uses the unknown argument {name!r}{hint}")
        if specification or conversion:
            raise ValueError(
                f"{where}: the pattern {text!r} formats {name!r}, but patterns insert the text of an argument as it is:"
                f" write {{{name}}}, and pass the formatted text as the argument."
            )


@lru_cache(PATTERNS_PARSED_MAX)
def _parts(pattern: str) -> tuple[tuple[str, str | None], ...]:
    """Return the texts of a checked pattern, each with the argument that follows it."""
    return tuple((literal, name) for literal, name, _, _ in string.Formatter().parse(pattern))


def path_of(pattern: str, args: Mapping[str, str], folder: str) -> str:
    """Return the absolute path that a checked pattern gives; that of a folder ends with "/".

    Args:
        pattern: text of the pattern.
        args: texts of the node args and task args, by name.
        folder: the working folder.

    Raises:
        ValueError: the path is empty or too long.

    >>> path_of("out/{name}.csv", {"name": "a"}, "/data"), path_of("/x//{name}/", {"name": ".."}, "/data")
    ('/data/out/a.csv', '/')
    """
    text = "".join([literal if name is None else literal + args[name] for literal, name in _parts(pattern)])
    if not text:
        raise ValueError(f"The file pattern {pattern!r} gives an empty path.")
    path = text if text[0] == "/" else f"{folder}/{text}"
    if "//" in path or "/." in path or path[0] != "/":  # normalizing is slow, and most paths are normal
        path = "/" + normpath(path).lstrip("/")
        path = path + FOLDER if text.endswith(FOLDER) and path != FOLDER else path
    if len(path) > PATH_CHARACTERS_MAX:
        raise ValueError(f"The path {path[:40]!r}... is longer than {PATH_CHARACTERS_MAX} characters.")
    return path


def files_of(declaration: Declaration, args: Mapping[str, str], folder: str) -> Files:
    """Return the files of a task; see `path_of`.

    Raises:
        ValueError: a path is invalid, or all of them together are too long.
    """
    found = Files(
        tuple([path_of(one.text, args, folder) for one in declaration.inputs]),
        tuple([path_of(one.text, args, folder) for one in declaration.outputs]),
    )
    characters = sum(map(len, found.inputs + found.outputs))
    if characters > TASK_CHARACTERS_MAX:
        raise ValueError(
            f"The paths of the declared files of one task have {characters:,} characters; at most"
            f" {TASK_CHARACTERS_MAX:,} are allowed. Declare a folder, or use *."
        )
    return found


# -- dependencies --------------------------------------------------------------------------------------------------


def _beginning(name: str) -> str:
    """Return what precedes the first wildcard of a name."""
    return name.partition(WILDCARD)[0]


@dataclass(slots=True)
class _Folder:
    """Outputs by the steps of their paths. `writers`: tasks that write this path; `folder_writers`: as a folder.

    Patterns are found by what precedes their first `*`, so that thousands of them in one folder are no problem.
    """

    steps: dict[str, _Folder] = field(default_factory=dict)
    patterns: dict[str, list[str]] = field(default_factory=dict)
    writers: list[int] = field(default_factory=list)
    folder_writers: list[int] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)

    def step(self, name: str) -> _Folder:
        """Return the entry of a name in this folder; add it if necessary."""
        found = self.steps.get(name)
        if found is None:
            found = self.steps[name] = _Folder()
            if WILDCARD in name:
                self.patterns.setdefault(_beginning(name), []).append(name)
        return found

    def matching(self, name: str) -> Iterator[_Folder]:
        """Yield the entries whose names may match a name or pattern."""
        beginning = _beginning(name)
        if WILDCARD in name:
            yield from (self.steps[other] for other in self._beginning_with(beginning) if overlap(name, other))
            shorter = range(len(beginning))
        else:
            if (same := self.steps.get(name)) is not None:
                yield same
            shorter = range(len(beginning) + 1)
        for length in shorter if self.patterns else ():
            for pattern in self.patterns.get(beginning[:length], ()):
                if overlap(name, pattern):
                    yield self.steps[pattern]

    def _beginning_with(self, beginning: str) -> Iterator[str]:
        """Yield the names and patterns in this folder that begin with a text."""
        if len(self._names) != len(self.steps):
            self._names = sorted(self.steps)
        for at in range(bisect_left(self._names, beginning), len(self._names)):
            if not self._names[at].startswith(beginning):
                return
            yield self._names[at]

    def below(self) -> Iterator[int]:
        """Yield the tasks that write something in this folder."""
        stack = [self]
        while stack:
            entry = stack.pop()
            yield from entry.writers
            yield from entry.folder_writers
            stack.extend(entry.steps.values())


class Writers:
    """Which tasks write which files.

    Args:
        outputs: the outputs of each task.
        name: returns the name of a task, for messages.
        folder: the working folder, for messages.

    Raises:
        DuplicateOutputError: two tasks declare the same output.
    """

    def __init__(self, outputs: Iterable[Sequence[str]], name: Callable[[int], str], folder: str = "/") -> None:
        self._writer: dict[str, int] = {}
        self._has_only_files = True
        self._tree: _Folder | None = None
        self._known: dict[str, frozenset[int]] = {}
        for task, paths in enumerate(outputs):
            for path in paths:
                other = self._writer.setdefault(path, task)
                if other != task:
                    raise DuplicateOutputError(
                        f"Tasks {name(other)!r} and {name(task)!r} both write {shown(path, folder)}."
                    )
                self._has_only_files = self._has_only_files and _is_file(path)

    def of(self, path: str) -> frozenset[int]:
        """Return the tasks that write an input; equal inputs share one set."""
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = self._find(path)
        return found

    def _find(self, path: str) -> frozenset[int]:
        if self._has_only_files and _is_file(path):
            task = self._writer.get(path)
            return _NOTHING if task is None else frozenset((task,))
        if self._tree is None:
            self._tree = _tree(self._writer)
        return frozenset(_covering(self._tree, path))


def _is_file(path: str) -> bool:
    return WILDCARD not in path and not path.endswith(FOLDER)


def _steps(path: str) -> list[str]:
    return [step for step in path.split(FOLDER) if step]


def _tree(writer: Mapping[str, int]) -> _Folder:
    root = _Folder()
    for path, task in writer.items():
        entry = root
        for step in _steps(path):
            entry = entry.step(step)
        (entry.folder_writers if path.endswith(FOLDER) else entry.writers).append(task)
    return root


def _covering(root: _Folder, path: str) -> Iterator[int]:
    steps = _steps(path)
    stack = [(root, 0)]
    while stack:
        entry, depth = stack.pop()
        yield from entry.folder_writers
        if depth < len(steps):
            stack.extend((following, depth + 1) for following in entry.matching(steps[depth]))
        elif path.endswith(FOLDER):
            yield from entry.below()
        else:
            yield from entry.writers


class Upstreams:
    """The tasks on which each task depends because of its files. Time and memory are linear in files and results.

    Args:
        files: the files of each task.
        name: returns the name of a task, for messages.
        folder: the working folder, for messages.

    Raises:
        DuplicateOutputError: two tasks declare the same output.
        CyclicGraphError: a task declares the same path as input and as output.
    """

    def __init__(self, files: Sequence[Files], name: Callable[[int], str], folder: str = "/") -> None:
        self._files = files
        self._folder = folder
        self._writers = Writers((each.outputs for each in files), name, folder)
        self._unions: dict[tuple[str, ...], frozenset[int]] = {}
        for task, each in enumerate(files):
            if each.outputs and not set(each.inputs).isdisjoint(each.outputs):
                path = shown(next(one for one in each.inputs if one in each.outputs), folder)
                raise CyclicGraphError(f"Task {name(task)!r} declares {path} both as an input and as an output.")

    def of(self, task: int) -> frozenset[int]:
        """Return the upstream tasks of a task; tasks with the same inputs mostly share one set."""
        inputs = self._files[task].inputs
        if not inputs:
            return _NOTHING
        found = self._unions.get(inputs)
        if found is None:
            sets = [self._writers.of(path) for path in inputs]
            found = sets[0] if len(sets) == 1 else frozenset().union(*sets)
            self._unions[inputs] = found
        return found - {task} if task in found else found

    def path_between(self, upstream: int, task: int) -> str | None:
        """Return an input of a task that another task writes, for messages; None if there is none."""
        found = (path for path in self._files[task].inputs if upstream in self._writers.of(path))
        return next((shown(path, self._folder) for path in found), None)
