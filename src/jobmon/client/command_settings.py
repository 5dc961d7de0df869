"""Resources that control how a command runs: `shell`, `stdout`, `stderr`, `env`. Checked when they are declared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent.outputs import is_file
from jobmon.agent.shells import shell_problem
from jobmon.core.constants import DEFAULT_CLUSTER_NAME
from jobmon.core.exceptions import InvalidResources
from jobmon.core.texts import SHOWN_CHARACTERS_MAX

if TYPE_CHECKING:
    from jobmon.core.resources import Resources

#: What Linux and macOS allow for the name of a file or folder.
FILE_NAME_BYTES_MAX: Final = 255
#: What Linux allows for the path of a file, less the name of a log file that may be appended to that of a folder.
PATH_BYTES_MAX: Final = 4_095 - FILE_NAME_BYTES_MAX - 1
#: What Linux allows for "NAME=value", without the closing NUL.
VARIABLE_BYTES_MAX: Final = 131_071

#: Clusters that run commands on this machine in every configuration.
_LOCAL_CLUSTERS: Final = frozenset({"", DEFAULT_CLUSTER_NAME, "sequential", "dummy"})


def checked_settings(resources: Resources, what: str, cluster_name: str = "") -> None:
    """Check how a request runs the command, and make its paths absolute in place.

    Args:
        resources: the request.
        what: name of the request in messages.
        cluster_name: cluster of the request. The shell must exist on this machine if commands of the cluster run here.

    Raises:
        InvalidResources: a value is invalid; the message names it and the remedy.
    """
    if (shell := resources.get("shell")) is not None:
        problem = shell_problem(shell, is_here=cluster_name in _LOCAL_CLUSTERS)
        if problem:
            raise InvalidResources(
                f"{what}: shell {shell!r} cannot run commands: {problem}. Write a program and its options, such as"
                " 'bash -euo pipefail'. A shell that exists only on the nodes of a cluster also requires the cluster's"
                " name (cluster_name)."
            )
    for key in ("stdout", "stderr"):
        if (value := resources.get(key)) is not None:
            resources[key] = _checked_output(value, f"{what}: {key}")
    if (environment := resources.get("env")) is not None:
        _check_environment(environment, f"{what}: env")


def _checked_output(value: Any, what: str) -> str:
    """Return an absolute path: a file, or a folder with a trailing slash where its name alone is ambiguous."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidResources(f"{what} must be the path of a file or a folder, not {value!r}.")
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise InvalidResources(f"{what} {value!r}: there is no user {expanded.split('/')[0][1:]!r} here.")
    path = os.path.abspath(expanded)
    if long := next((name for name in path.split("/") if len(os.fsencode(name)) > FILE_NAME_BYTES_MAX), ""):
        raise InvalidResources(
            f"{what}: the name {long[:SHOWN_CHARACTERS_MAX]!r}... has more than the {FILE_NAME_BYTES_MAX} bytes that a"
            " file system allows."
        )
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise InvalidResources(
            f"{what}: the path {path[:SHOWN_CHARACTERS_MAX]!r}... has more than {PATH_BYTES_MAX:,} bytes, the maximum."
        )
    if expanded.endswith("/") or os.path.isdir(path):
        return f"{path.rstrip('/')}/"
    if os.path.isfile(path) and not is_file(path):
        raise InvalidResources(
            f"{what} {value!r} is an existing file without an extension. Use a folder, or a file such as"
            f" {value + '.log'!r}."
        )
    return path


def _check_environment(environment: Any, what: str) -> None:
    if not isinstance(environment, Mapping):
        raise InvalidResources(f"{what} must be a dict of environment variables, not {environment!r}.")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            raise InvalidResources(f"{what}: {name!r} is not the name of an environment variable.")
        if not isinstance(value, str | int | float) or "\0" in str(value):
            raise InvalidResources(f"{what}: the value of {name!r} must be a string or a number, not {value!r}.")
        if len(os.fsencode(f"{name}={value}")) > VARIABLE_BYTES_MAX:
            raise InvalidResources(
                f"{what}: {name[:SHOWN_CHARACTERS_MAX]!r} and its value have more than the {VARIABLE_BYTES_MAX:,} bytes"
                " that the system allows; write long values to a file."
            )
