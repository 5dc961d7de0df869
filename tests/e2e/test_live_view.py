"""The progress display on a real terminal: in the script's own window, and with --watch in another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBMON = Path(sys.executable).with_name("jobmon")
pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: no terminal to look at")

LEFT = r"\d:\d\d:\d\d( to \d:\d\d:\d\d)? left\s"
SCRIPT = """
from jobmon.client.api import Tool

tool = Tool(name="live")
quick = tool.get_task_template("quick", command_template="{command}", node_args=["command"])
gated = tool.get_task_template("gated_作業", command_template="{command}", node_args=["command"])
workflow = tool.create_workflow(name="live", workflow_args="live", default_max_attempts=1)
quicks = [quick.create_task(command=f"sleep 0.2; : {i}") for i in range(4)]
wait = "while [ ! -e %s ]; do sleep 0.05; done; : {}"
gates = [gated.create_task(command=(wait % "one").format(i), upstream_tasks=quicks) for i in range(2)]
last = [gated.create_task(command=(wait % "two").format(i), upstream_tasks=gates) for i in range(2, 5)]
workflow.add_tasks([*quicks, *gates, *last, quick.create_task(command="echo cannot read x >&2; exit 3")])
workflow.run()
"""


class Window:
    """A terminal of 80 by 24 in which a command runs."""

    def __init__(self, home, name: str, command: str) -> None:
        self._home = home
        self._name = name
        self._tmux("new-session", "-d", "-s", name, "-x", "80", "-y", "24", f"{command}; sleep 600")

    def _tmux(self, *words: str) -> str:
        place = self._home.environment | {"TMUX_TMPDIR": str(self._home.folder), "LC_ALL": "C.UTF-8"}
        place.pop("NO_COLOR", None)
        return subprocess.run(
            ["tmux", "-L", "live", "-f", "/dev/null", *words],
            cwd=self._home.folder,
            env=place,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def text(self) -> str:
        """Return the text on the screen."""
        return self._tmux("capture-pane", "-p", "-t", self._name)

    def press(self, key: str) -> None:
        """Press a key, in tmux's notation."""
        self._tmux("send-keys", "-t", self._name, key)

    def close_all(self) -> None:
        """End the terminals."""
        self._tmux("kill-server")


@pytest.fixture
def windows(home, wait_until) -> Iterator[tuple[Window, Window]]:
    own = Window(home, "own", f"{sys.executable} {home.script(SCRIPT)}")
    begun = f"until {JOBMON} workflow status | grep -q RUNNING; do sleep 0.1; done"
    yield own, Window(home, "watch", f"{begun}; {JOBMON} workflow status --watch")
    for gate in ("one", "two"):
        (home.folder / gate).touch()
    wait_until(lambda: "0 running  9 done  1 failed" in own.text(), 60)  # a lost terminal would not end the run
    own.close_all()


def test_both_windows_show_how_it_goes_on(windows, home, wait_until):
    patterns = (
        r"live.* ━+.* 4/10 ",
        r"3 waiting  0 queued  2 running  4 done  1 failed",
        r"waiting +queued +running +done +failed +each\ngated_作業 +3 +0 +2 +0 +0\s",  # where most is left is first
        r"cannot read x",
    )
    for window in windows:
        for pattern in patterns:
            wait_until(lambda: re.search(pattern, window.text()), 60)  # noqa: B023 - called at once
        assert window.text().count("/10 ") == 1  # drawn in place, not again and again
    (home.folder / "one").touch()
    for window in windows:
        wait_until(lambda: re.search(LEFT, window.text()), 60)  # noqa: B023
    (home.folder / "two").touch()
    for window in windows:
        wait_until(lambda: "0 running  9 done  1 failed" in window.text(), 60)  # noqa: B023
    assert "FAILED" in windows[1].text()


def test_ctrl_c_leaves_one_picture_of_what_was_watched(windows, home, wait_until):
    _, watch = windows
    wait_until(lambda: re.search("2 running  4 done  1 failed", watch.text()), 60)
    watch.press("C-c")
    wait_until(lambda: "Stopped watching; the workflows continue." in watch.text(), 60)
    shown = watch.text()
    assert (shown.count("/10 "), shown.count("live RUNNING"), shown.count("each\n")) == (1, 1, 1)
    assert shown.index("/10 ") < shown.index("Stopped watching")
