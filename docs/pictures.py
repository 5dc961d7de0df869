"""Make the pictures of a terminal, of a notebook and of the web page in `docs/images` from real runs and a real server.

    python docs/pictures.py [terminal] [notebook] [page]

A shell in a terminal (tmux) runs the commands of the tutorial; Rich turns its screen into SVG. A notebook is executed
(nbclient), converted to HTML (nbconvert), and photographed by Chromium. The page shows a large workflow that
`benchmarks.big_database` writes, at three widths, light and dark. It needs tmux, Chromium, nbconvert, Playwright and
Pillow.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
TUTORIAL = DOCS / "tutorial" / "first-workflow.md"
COLUMNS, ROWS = 96, 24
WAIT_SECONDS_MAX = 60.0
NOTEBOOK_SIZE = (1000, 470)
PAGE_TASKS = 50_000
PAGE_HEIGHT = 900
WIDTHS = (1440, 1024, 360)
THEMES = ("light", "dark")
#: The sections of a workflow's page that are photographed, and what they show when they are complete.
SECTIONS = {
    "graph": ("Graph", "svg"),
    "squares": ("All tasks", "canvas"),
    "timeline": ("Timeline", "svg.chart"),
    "resources": ("Resources", "table"),
}
PALETTE_COLORS = 256
PROMPT = r"^\$ ?$"
#: Without it, the picture would load a font from another site.
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
SIMULATION = """
from jobmon import Tool

tool = Tool(name="simulation")
tool.update_default_compute_resources("", shell="bash -euo pipefail")
simulate = tool.get_task_template("simulate", command_template="sleep 0.5; echo {seed}", node_args=["seed"])
merge = tool.get_task_template("merge", command_template="sleep 0.5; echo merged {group}", node_args=["group"])

workflow = tool.create_workflow(name="simulation", workflow_args="pictures")
for group in range(6):
    runs = simulate.create_tasks(seed=[10 * group + number for number in range(6)])
    workflow.add_tasks([*runs, merge.create_task(group=group, upstream_tasks=runs)])
print(workflow.run())
"""
CELLS = (
    """from jobmon import Tool

tool = Tool(name="notebook")
square = tool.get_task_template("square", command_template="sleep 0.2; echo $(({n} * {n}))", node_args=["n"])
check = tool.get_task_template("check", command_template="cat {path:q}", op_args=["path"])

workflow = tool.create_workflow(name="squares", workflow_args="notebook", default_max_attempts=1)
squares = square.create_tasks(n=list(range(20)))
workflow.add_tasks(squares)
workflow.add_task(check.create_task(path="limits.txt", upstream_tasks=squares));""",
    "workflow.run()",
    """{name: errors[0]["error"] for name, errors in workflow.task_errors.items()}""",
)


class Terminal:
    """A shell in a terminal."""

    def __init__(self, folder: Path) -> None:
        self._environment = {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "PS1": "$ ",
            "TMUX_TMPDIR": str(folder),
        }
        self._folder = folder
        size = ("-x", str(COLUMNS), "-y", str(ROWS))
        self._tmux("new-session", "-d", "-s", "picture", *size, "exec env PS1='$ ' bash --norc --noprofile")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-L", "picture", "-f", "/dev/null", *words]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def enter(self, line: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-t", "picture", "-l", line)
        self._tmux("send-keys", "-t", "picture", "Enter")

    def wait_for(self, pattern: str) -> None:
        """Wait until the screen shows text that matches."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not re.search(pattern, self._tmux("capture-pane", "-p", "-t", "picture"), re.MULTILINE):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pattern}:\n{self._tmux('capture-pane', '-p', '-t', 'picture')}")
            time.sleep(0.05)

    def save(self, name: str, title: str) -> None:
        """Save the screen as SVG."""
        from rich.console import Console
        from rich.text import Text

        screen = self._tmux("capture-pane", "-p", "-e", "-t", "picture").rstrip("\n")
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(screen), soft_wrap=True)
        picture = FONT_FACE.sub("", console.export_svg(title=title, unique_id=name))
        (IMAGES / f"{name}.svg").write_text(picture.replace("Fira Code", "monospace"))

    def close(self) -> None:
        """Stop the server of the data folder, and the terminal."""
        jobmon = [str(Path(sys.executable).with_name("jobmon")), "server", "stop"]
        subprocess.run(jobmon, env=self._environment, capture_output=True, check=False)
        self._tmux("kill-server")


def scripts_of_tutorial() -> dict[str, str]:
    """Return the scripts of the tutorial by name."""
    text = TUTORIAL.read_text()
    return dict(re.findall(r"Save this as\s+`(\w+\.py)`:\s+```python\n(.*?)```", text, re.DOTALL))


def photograph_terminal(folder: Path) -> None:
    """Make the pictures of a run, and of a failure and its explanation."""
    for name, script in {**scripts_of_tutorial(), "simulation.py": SIMULATION}.items():
        (folder / name).write_text(script)
    terminal = Terminal(folder)
    try:
        terminal.wait_for(PROMPT)
        terminal.enter("python simulation.py")
        terminal.wait_for(r"2\d/42")
        terminal.save("terminal-run", "A workflow runs")
        terminal.wait_for(r"^D$")
        terminal.enter("clear; python simulate.py > /dev/null 2>&1; clear")
        terminal.wait_for(rf"\A{PROMPT}")
        terminal.enter("python report.py")
        terminal.wait_for(PROMPT)
        terminal.enter("jobmon workflow errors 3")
        terminal.wait_for(PROMPT)
        terminal.save("terminal-errors", "A task fails")
    finally:
        terminal.close()


def photograph_notebook(folder: Path) -> None:
    """Make the picture of a notebook whose workflow has a failed task."""
    import nbclient
    import nbconvert
    import nbformat

    environment = {"HOME": str(folder), "JOBMON_DATA_DIR": str(folder / "data")}
    os.environ.update(environment)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=int(WAIT_SECONDS_MAX), resources=resources).execute()
    page, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(notebook)
    (folder / "notebook.html").write_text(page)
    picture = folder / "notebook.png"
    width, height = NOTEBOOK_SIZE
    chromium = shutil.which("chromium") or "chromium-browser"
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"),
            *(f"--window-size={width},{height}", f"--user-data-dir={folder / 'chromium'}"),
            *(f"--screenshot={picture}", (folder / "notebook.html").as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=WAIT_SECONDS_MAX,
    )
    shutil.copy(picture, IMAGES / "notebook.png")
    jobmon = Path(sys.executable).with_name("jobmon")
    subprocess.run([str(jobmon), "server", "stop"], env=os.environ | environment, capture_output=True, check=False)


def photograph_page(folder: Path) -> None:
    """Make the pictures of the web page: a workflow, sections of it, and the preview of an action."""
    sys.path.insert(0, str(DOCS.parent))
    from benchmarks.big_database import build
    from playwright.sync_api import sync_playwright

    data = folder / "data"
    data.mkdir(mode=0o700)
    build(data / "jobmon.sqlite", PAGE_TASKS)
    environment = os.environ | {"HOME": str(folder), "JOBMON_DATA_DIR": str(data)}
    jobmon = str(Path(sys.executable).with_name("jobmon"))

    def run(*words: str) -> str:
        return subprocess.run([jobmon, *words], env=environment, capture_output=True, text=True, check=True).stdout

    try:
        with sync_playwright() as driver:
            chromium = shutil.which("chromium") or "chromium-browser"
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            for theme in THEMES:
                address = json.loads(run("ui", "--no-browser", "-o", "json", "-w", "1"))["address"]
                size = {"width": WIDTHS[0], "height": PAGE_HEIGHT}
                page = browser.new_page(color_scheme=theme, viewport=size, bypass_csp=True)
                page.set_default_timeout(1_000 * WAIT_SECONDS_MAX)
                page.goto(address)
                page.add_style_tag(content="header { position: static !important }")  # not over tall sections
                _photograph_views(page, theme)
                page.close()
            browser.close()
    finally:
        run("server", "stop")


def _photograph_views(page: Page, theme: str) -> None:
    for title, shown in SECTIONS.values():
        section = page.locator(f'section[aria-label="{title}"]')
        section.locator("summary").first.click()
        section.locator(shown).first.wait_for()
    page.locator('section[aria-label="What went wrong"] ol.groups').wait_for()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": PAGE_HEIGHT})
        page.evaluate("window.scrollTo(0, 0)")
        _save(page.screenshot(), f"page-{width}-{theme}")
        for name, (title, _) in SECTIONS.items():
            section = page.locator(f'section[aria-label="{title}"]')
            section.scroll_into_view_if_needed()
            _save(section.screenshot(), f"{name}-{width}-{theme}")
    page.set_viewport_size({"width": WIDTHS[1], "height": PAGE_HEIGHT})
    page.get_by_role("link", name="failed tasks of this host").first.click()
    page.get_by_role("group", name="Actions on all tasks that match the filter").get_by_text("Rerun").click()
    page.get_by_role("dialog").get_by_label("Preview").wait_for()
    _save(page.screenshot(), f"actions-{WIDTHS[1]}-{theme}")


def _save(picture: bytes, name: str) -> None:
    """Save a picture with few colors: a quarter of the size."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        method = Image.Quantize.MAXCOVERAGE  # few red letters must stay red
        small = image.convert("RGB").quantize(PALETTE_COLORS, method, dither=Image.Dither.NONE)
    small.save(IMAGES / f"{name}.png", optimize=True)


def main() -> None:
    """Make all pictures, or those that are named."""
    every = {"terminal": photograph_terminal, "notebook": photograph_notebook, "page": photograph_page}
    for name in sys.argv[1:] or every:
        photograph = every[name]
        with tempfile.TemporaryDirectory(prefix="jobmon-picture-", ignore_cleanup_errors=True) as folder:
            photograph(Path(folder))


if __name__ == "__main__":
    main()
