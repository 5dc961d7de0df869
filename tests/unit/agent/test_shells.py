"""One rule for shells: split once, `-c` appended, the program found on PATH."""

from __future__ import annotations

import pytest

from jobmon.agent.shells import shell_problem, shell_words


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("/bin/sh", ("/bin/sh", "-c")),
        ("bash", ("bash", "-c")),
        ("/bin/bash -euo pipefail", ("/bin/bash", "-euo", "pipefail", "-c")),
        ("/bin/bash -euo pipefail -c", ("/bin/bash", "-euo", "pipefail", "-c")),
        ("/bin/bash -lc", ("/bin/bash", "-lc")),
        ("bash --norc", ("bash", "--norc", "-c")),
        ("bash --rcfile /etc", ("bash", "--rcfile", "/etc", "-c")),
        ("'/opt/my shell' -x", ("/opt/my shell", "-x", "-c")),
        (["/bin/zsh"], ("/bin/zsh", "-c")),
        (["bash", "-c"], ("bash", "-c")),
        ("bash '", ("bash '", "-c")),
        ("", ("", "-c")),
    ],
)
def test_the_words_before_the_command(shell, words):
    assert shell_words(shell) == words


@pytest.mark.parametrize("shell", ["sh", "/bin/sh", "/bin/sh -eu", ["/bin/sh", "-c"], ("sh",)])
def test_a_shell_that_can_run_commands(shell):
    assert shell_problem(shell) == ""


@pytest.mark.parametrize(
    ("shell", "problem"),
    [
        ("", "it names no program"),
        ("  ", "it names no program"),
        ([], "it names no program"),
        (7, "it must be a string or a list of strings"),
        (["sh", 1], "it must be a string or a list of strings"),
        ("bash 'x", "a quotation mark is not closed"),
        ("/no/such/shell -e", "/no/such/shell does not exist"),
        ("/etc/passwd", "/etc/passwd is not executable"),
        ("/bin", "/bin is not executable"),
        ("no-such-shell -e", "program 'no-such-shell' is not on PATH"),
    ],
)
def test_what_is_wrong_with_a_shell(shell, problem):
    assert shell_problem(shell) == problem


def test_a_shell_of_other_machines_is_not_looked_for_here():
    assert shell_problem("/no/such/shell", is_here=False) == ""
    assert shell_problem("bash '", is_here=False)
