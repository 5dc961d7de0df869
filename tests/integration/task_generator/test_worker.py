"""Functions run as real processes: found from another folder, in any kind of file, with real arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobmon.core.access import stop_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).resolve().parents[3]
SECONDS_MAX = 60
FUNCTION = """
import sys
from jobmon.core.task_generator import task_generator

@task_generator(tool_name="t")
def say(text: str, out: str = "") -> str:
    print(__name__, repr(text))
    if text == "fail":
        raise OSError("as asked")
    if text == "leave":
        sys.exit(7)
    return "dropped"
"""
MAKE = """
if __name__ == "__main__":
    for text in sys.argv[1:]:
        print(say.create_task(text=text).command)
"""
EVIL = "-x 'y' \"z\" $(id) `id` ${HOME} {x} 100%s %41 ~ * ! # ; & | < > \\ \t\r\n é 𝄞"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory that has nothing to do with where the sources are."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture
def commands(tmp_path: Path) -> Callable[..., list[str]]:
    """Return how a script that is started in its own folder interprets some texts."""

    def made(*arguments: str) -> list[str]:
        finished = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.splitlines()

    return made


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "1"}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def test_a_script_with_the_name_of_a_standard_module(tmp_path, commands, elsewhere):
    """And with a module beside it; any text comes through, what the function raises is the exit code."""
    (tmp_path / "beside.py").write_text("FOUND = True\n")
    (tmp_path / "codecs.py").write_text(f"{FUNCTION}import beside\n{MAKE}")
    said, failed, left = (run(each, elsewhere) for each in commands("codecs.py", EVIL, "fail", "leave"))
    assert (said.returncode, said.stdout, said.stderr) == (0, f"jobmon_source_codecs {EVIL!r}\n", "")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Traceback")
    assert failed.stderr.endswith("OSError: as asked\n")
    assert left.returncode == 7


def test_a_package_started_as_a_module(tmp_path, commands, elsewhere):
    """And a file in the working directory cannot hide what the client imported."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "inner.py").write_text("FOUND = True\n")
    (tmp_path / "pkg" / "steps.py").write_text(f"from pkg.inner import FOUND\nfrom .inner import FOUND{FUNCTION}{MAKE}")
    (elsewhere / "pkg.py").write_text("raise SystemExit('the wrong one')\n")
    (elsewhere / "json.py").write_text("raise SystemExit('the wrong one')\n")
    (command,) = commands("-m", "pkg.steps", "a b")
    assert "--module pkg.steps --func say --path" in command
    said = run(command, elsewhere)
    assert (said.stdout, said.stderr) == ("pkg.steps 'a b'\n", "")


def test_a_module_beside_the_script(tmp_path, commands, elsewhere):
    (tmp_path / "steps.py").write_text(FUNCTION)
    (tmp_path / "script.py").write_text(f"import sys\nfrom steps import say\n{MAKE}")
    (command,) = commands("script.py", "")
    assert run(command, elsewhere).stdout == "steps ''\n"


def test_a_source_that_cannot_be_imported_by_name(tmp_path, commands, elsewhere):
    source = tmp_path / "copy on the cluster.py"
    source.write_text(FUNCTION)
    marked = FUNCTION.replace('tool_name="t"', f'tool_name="t", module_source_path={str(source)!r}')
    (tmp_path / "steps.py").write_text(marked)
    (tmp_path / "script.py").write_text(f"import sys\nfrom steps import say\n{MAKE}")
    (command,) = commands("script.py", "x")
    assert "--source" in command
    (tmp_path / "steps.py").unlink()
    assert run(command, elsewhere).stdout == "steps 'x'\n"


def test_a_script_that_makes_tasks_whenever_it_is_imported(tmp_path, commands, elsewhere):
    """Its tasks fail with a hint; they do not make workflows of their own."""
    (tmp_path / "script.py").write_text(f"{FUNCTION}\nprint(say.create_task(text='x').command)\n")
    (command,) = commands("script.py")
    said = run(command, elsewhere)
    assert said.returncode == 1
    assert 'creates tasks when a worker imports it; put that code under `if __name__ == "__main__":`' in said.stderr


def test_a_function_that_is_gone_or_not_decorated(tmp_path, commands, elsewhere):
    (tmp_path / "script.py").write_text(FUNCTION + MAKE)
    (command,) = commands("script.py", "x")
    (tmp_path / "script.py").write_text("def say(text: str): pass\n")
    assert "script.py has no 'say' decorated with @task_generator()" in run(command, elsewhere).stderr


@pytest.mark.parametrize(
    "words", ["", "--args", "--module m --args x=1", "--module m --func f", "--module --args", "-h"]
)
def test_a_command_that_is_none(words, elsewhere):
    finished = run(f"{sys.executable} -m jobmon.core.task_generator {words}", elsewhere)
    assert (finished.returncode, finished.stderr.partition(" ")[0]) == (2, "usage:")


def test_the_worker_starts_light(tmp_path, commands, elsewhere):
    """Neither the client nor what only the client needs, nor any module that the function does not use."""
    (tmp_path / "steps.py").write_text(FUNCTION.replace("print(", "print(*sys.modules) if not text else print("))
    (tmp_path / "script.py").write_text(f"import sys\nfrom steps import say\n{MAKE}")
    (command,) = commands("script.py", "")
    nothing = run(f"{sys.executable} -P -c 'import sys; print(*sys.modules)'", elsewhere)
    modules = {*run(command, elsewhere).stdout.split()} - {*nothing.stdout.split()}
    assert "jobmon.core.task_generator.worker" in modules
    assert [name for name in modules if name.startswith("jobmon.") and "jobmon.core" not in name] == []
    heavy = {"argparse", "inspect", "dataclasses", "datetime", "pathlib", "msgspec", "asyncio", "http.client", "yaml"}
    assert heavy & modules == set()


# --- the whole way ----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A separate home, whose server is stopped after the test."""
    data = tmp_path / "d"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    yield kept | {"JOBMON_DATA_DIR": str(data)}
    stop_server(data=data)


def test_the_page_of_the_documentation(elsewhere, environment):
    """Its first block is the script that the text says it is."""
    page = (PROJECT / "docs" / "howto" / "task-generator.md").read_text()
    (elsewhere / "squares.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    finished = subprocess.run(
        [sys.executable, "squares.py"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert finished.stdout.splitlines() == ["D", "The sum is 14"], finished.stderr


def test_the_example_fans_out_and_in(tmp_path, elsewhere, environment):
    """On `multiprocess`, with dataclasses, enumerations, lists of paths and texts that a shell would like."""
    folder = tmp_path / "out put"
    finished = subprocess.run(
        [sys.executable, PROJECT / "examples" / "task_generator.py", folder],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "Pangram: o 4, e 3, t 2",
        'Kafka\'s "beetle": e 8, s 6, r 6',
        "What a shell would like: o 4, n 3, e 2",
        "LOUD: A 2, a 1",
        "D",
    ]
    listed = subprocess.run(
        [Path(sys.executable).with_name("jobmon"), "workflow", "tasks", "-w", "1", "-o", "json"],
        env=environment,
        capture_output=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    tasks = json.loads(listed.stdout)
    assert [(task["array_name"], task["status"]) for task in tasks] == [("count", "D")] * 4 + [("compare", "D")]
