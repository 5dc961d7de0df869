"""The distribution, and the instructions to install it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jobmon
from jobmon.client import api
from jobmon.core.installing import INSTALL, how_to_install

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: The name belongs to another program on the public index.
FROM_INDEX = re.compile(r"pip install (?:--?[\w-]+ )*['\"]?jobmon\b")


def test_nobody_is_told_to_install_a_foreign_program():
    texts = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py"), *ROOT.glob("ui/src/*.ts*")]
    found = [str(path) for path in texts if FROM_INDEX.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_the_readme_shows_the_command_that_messages_name():
    assert INSTALL in (ROOT / "README.md").read_text(encoding="utf-8")
    assert INSTALL in how_to_install()


def test_public_names_are_at_the_top():
    for name in api.__all__:
        assert getattr(jobmon, name) is getattr(api, name)
    assert jobmon.__version__ == PROJECT["project"]["version"]


def test_the_package_is_light_for_workers():
    code = "import sys; sys.path.append(sys.argv[1]); import jobmon, jobmon.agent; print(sorted(sys.modules))"
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "src")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for heavy in ("'typing'", "'re'", "'importlib.metadata'", "'jobmon.client'"):
        assert heavy not in loaded


def test_the_package_is_a_command():
    found = subprocess.run([sys.executable, "-m", "jobmon", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"jobmon {jobmon.__version__}\n"


def test_reprs_name_things():
    tool = api.Tool("census")
    template = tool.get_task_template("count", "wc -l {file:q}", ["file"])
    workflow = tool.create_workflow("2026", name="year")
    workflow.add_task(template.create_task(file="a"))
    assert repr(tool) == "<Tool 'census'>"
    assert repr(template) == "<TaskTemplate 'count' 'wc -l {file:q}'>"
    assert repr(workflow) == "<Workflow not recorded 'year': 1 task>"
