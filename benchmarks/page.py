"""`python -m benchmarks.page --tasks N [--database FILE]`: measure the web page in Chromium while N tasks change.

Writes the database (`big_database`) or copies the given one, starts a server for it, changes tasks as fast as the
design demands (`page_load`), and uses the page as a person does. Prints figures as JSON. Needs Playwright and Chromium.

Elapsed times are those of an unloaded machine at best. CPU times are those of the server's process in windows without a
page, with one, and with one and nine more readers, one after the other and repeatedly.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sqlite3
import statistics
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import psutil
from playwright.sync_api import Page

from benchmarks.big_database import TASKS_PER_LOCATION, build
from benchmarks.page_load import CHANGES_PER_SECOND, FAILURE, Asked, Changes, Readers
from jobmon.core import access
from jobmon.core.constants import TaskStatus
from jobmon.core.requester import Requester
from jobmon.core.wire.credentials import LinkResponse
from jobmon.core.wire.server import Metrics
from jobmon.server.counting import StatusCounts
from jobmon.server.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Request

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--no-sandbox",
)
READERS: Final = 9
#: Changes per second in the windows that compare the server's CPU time per task: as many as a fast run makes. A
#: workflow with fewer tasks than `FEW_TASKS` does not have enough waiting ones for that.
FAST_CHANGES_PER_SECOND: Final = 10_000
FEW_TASKS: Final = 500_000
WINDOW_SECONDS: Final = 6.0
FAST_WINDOW_SECONDS: Final = 4.0
ROUNDS: Final = 3
ROUNDS_OF_FEW: Final = 2
AGE_SECONDS: Final = 15.0
AGE_SAMPLE_SECONDS: Final = 0.05
PAN_SECONDS: Final = 3.0
SETTLE_SECONDS: Final = 2.0
WAIT_SECONDS_MAX: Final = 180.0
COUNTER_TRANSACTIONS: Final = 2_000
_TIMES: Final = re.compile(r"([\d,]+) ×")
_HITS: Final = re.compile(r"([\d,]+) hits")
_PAN: Final = """
async ([seconds, step]) => {
  const box = document.querySelector(".matrix");
  const times = [];
  let down = true;
  const start = performance.now();
  while (performance.now() - start < 1000 * seconds) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
    times.push(performance.now());
    if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) down = false;
    if (box.scrollTop <= 0) down = true;
    box.scrollTop += down ? step : -step;
  }
  return times.length / ((times.at(-1) - times[0]) / 1000);
}
"""


@dataclass
class World:
    """A server with the large workflow, the run that changes it, and the page."""

    server: psutil.Process
    requester: Requester
    changes: Changes
    page: Page
    #: Tasks that were done, and that had failed, before the run changed anything.
    done: int
    failed: int
    is_small: bool
    #: CPU time that the counts of tasks cost a transaction.
    counters_seconds: float
    #: Routes that the page requested: path with query -> times, seconds.
    asked: dict[str, list[float]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def cpu(self) -> float:
        times = self.server.cpu_times()
        return times.user + times.system

    def transactions(self) -> int:
        """Return how many transactions the server has committed."""
        return self.requester.call("/metrics", None, Metrics, "get").transactions

    def note(self, request: Request) -> None:
        """Note a request of the page, with the credential that it carries."""
        parts = urlsplit(request.url)
        if not parts.path.startswith("/api/") or request.method != "GET":
            return
        self.asked.setdefault(parts.path + (f"?{parts.query}" if parts.query else ""), []).append(time.monotonic())
        named = ("authorization", "cache-control", "accept")
        self.headers = {name: value for name, value in request.headers.items() if name in named}
        self.headers["accept-encoding"] = "gzip"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--database", type=Path, help="database that big_database wrote; it is copied")
    options = parser.parse_args()
    data = Path(os.environ["JOBMON_DATA_DIR"])
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if options.database is None:
        build(data / "jobmon.sqlite", options.tasks)
    else:
        shutil.copy(options.database, data / "jobmon.sqlite")
    counters = _counters(data / "jobmon.sqlite")
    found: dict[str, Any] = {"counters: per transaction": counters}
    done, failed = (_tasks(data / "jobmon.sqlite", status) for status in (TaskStatus.DONE, TaskStatus.ERROR_FATAL))
    requester = Requester.from_defaults()
    server = psutil.Process(access.ensure_server().pid)
    try:
        with Changes(requester, max(1, options.tasks // TASKS_PER_LOCATION)) as changes, _browser() as page:
            world = World(server, requester, changes, page, done, failed, options.tasks < FEW_TASKS, counters / 1e6)
            time.sleep(SETTLE_SECONDS)
            found |= _measured(world, requester)
            if changes.error is not None:
                raise changes.error
    finally:
        access.stop_server(timeout=WAIT_SECONDS_MAX)
    print(json.dumps(found))


def _tasks(database: Path, status: TaskStatus) -> int:
    """Return how many tasks have a status before anything changes."""
    with closing(sqlite3.connect(database)) as connection:
        (number,) = connection.execute(
            "SELECT SUM(number) FROM status_count WHERE workflow_id = 1 AND status = ?", (status.value,)
        ).fetchone()
    return int(number)


@contextmanager
def _browser() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        sys.exit("The page is measured in Chromium; on Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = browser.new_context(viewport={"width": 1440, "height": 900}, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(1_000 * WAIT_SECONDS_MAX)
        yield page
        browser.close()


def _measured(world: World, requester: Requester) -> dict[str, Any]:
    page = world.page
    code = requester.call("/page/codes", {}, LinkResponse).key
    base = f"{access.ensure_server().address}/#"
    figures = page.locator(".figures li").first
    found: dict[str, Any] = {}
    first = base + urlencode({"key": code, "user": "", "go": "/workflows/1"}, safe="/")
    found["first_figures"] = _seconds(lambda: page.goto(first), figures)
    world.page.on("request", world.note)
    found |= _clicks(world)
    found |= _ages(world)
    found |= _cpu(world, f"{base}/workflows/1")
    found |= _matrix(world)
    return found


def _seconds(act: Callable[[], object], shown: Locator) -> float:
    """Return the time from an action until something is shown."""
    began = time.perf_counter()
    act()
    shown.wait_for()
    return time.perf_counter() - began


def _clicks(world: World) -> dict[str, float]:
    """Switch views, filter and search as a person does; return the time until the answer is shown."""
    page = world.page
    found = {}
    to_list = page.locator("header a.name")
    large = page.get_by_role("table", name="Workflows").get_by_role("link", name="large")
    found["switch: workflow to list"] = _seconds(to_list.click, large)
    found["switch: list to workflow"] = _seconds(large.click, page.locator(".figures li").first)
    for title, shown in (
        ("All tasks", ".matrix canvas"),
        ("Timeline", "svg.chart"),
        ("Resources", "section[aria-label=Resources] table"),
        ("History", "section[aria-label=History] :is(table, ul, ol, .quiet)"),
    ):
        section = page.locator(f'section[aria-label="{title}"]')
        cpu = world.cpu()
        found[f"switch: {title}"] = _seconds(section.locator("summary").click, page.locator(shown).first)
        found[f"server: {title}"] = world.cpu() - cpu
        section.locator("summary").click()
        found[f"again: {title}"] = _seconds(section.locator("summary").click, page.locator(shown).first)
        section.locator("summary").click()
    names = page.get_by_role("table", name="Tasks", exact=True)
    rows = names.locator('td[data-head="Status"]')
    status = page.get_by_label("Task status")
    fatal = rows.first.filter(has_text="FATAL")
    found["filter FATAL"] = _seconds(lambda: status.select_option("fatal"), fatal)
    status.select_option("any")
    page.locator('section[aria-label="Tasks"] h2').filter(has_text="tasks,").wait_for()  # no longer "hits"
    search = page.get_by_label("Task name")
    none = page.get_by_text("No task is like that.")
    found["search: no hit"] = _seconds(lambda: search.fill("nothing like it"), none)
    hit = names.get_by_role("link", name="report_7_0", exact=True)
    found["search: one hit"] = _seconds(lambda: search.fill("report_7_0"), hit)
    search.fill("")
    rows.first.wait_for()
    return found


def _ages(world: World) -> dict[str, float]:
    """Compare what is shown with what the server has confirmed, and measure how rarely each route is polled.

    A stream sends figures, failures and tasks; tasks are filtered here, so that the page has to poll them.
    """
    page, changes = world.page, world.changes
    done = page.locator(".figures li.tone-done b")
    failed = page.locator("ol.groups > li").filter(has_text=FAILURE)  # a group for each template
    failed.first.wait_for()
    page.get_by_label("Task status").select_option("fatal")
    hits = page.locator('section[aria-label="Tasks"] h2').filter(has_text="hits")
    hits.wait_for()
    time.sleep(SETTLE_SECONDS)
    done_ages, failed_ages, hit_ages = [], [], []
    world.asked.clear()
    until = time.monotonic() + AGE_SECONDS
    while time.monotonic() < until:
        began = time.monotonic()
        done_ages.append(changes.age_of(began, done=_number(done) - world.done))
        began = time.monotonic()
        failed_ages.append(changes.age_of(began, failed=sum(_numbers(failed))))
        began = time.monotonic()
        hit_ages.append(changes.age_of(began, failed=_hits(hits) - world.failed))
        time.sleep(AGE_SAMPLE_SECONDS)
    rests = {path: _longest_rest(times) for path, times in world.asked.items() if not path.endswith("/stream")}
    page.get_by_label("Task status").select_option("any")
    return {
        "age: filtered tasks": max(hit_ages),
        "age: figures": max(done_ages),
        "age: failures": max(failed_ages),
        "age: slowest route": max(rests.values(), default=0.0),
    }


def _number(shown: Locator) -> int:
    return int(shown.inner_text().replace(",", ""))


def _hits(heading: Locator) -> int:
    """Return how many tasks match the filter, of which only some are shown."""
    found = _HITS.search(heading.inner_text())
    assert found is not None, "tasks are filtered"
    return int(found[1].replace(",", ""))


def _numbers(groups: Locator) -> list[int]:
    return [int(found[1].replace(",", "")) for text in groups.all_inner_texts() if (found := _TIMES.search(text))]


def _longest_rest(times: list[float]) -> float:
    return max((after - before for before, after in pairwise(times)), default=0.0)


def _cpu(world: World, address: str) -> dict[str, float]:
    """Measure the server's CPU time without a page, with one, and with one and nine more readers."""
    page, shares = world.page, _Windows(world)
    asked: list[Asked] = []
    for fast in (False,) if world.is_small else (False, True):
        world.changes.per_second = FAST_CHANGES_PER_SECOND if fast else CHANGES_PER_SECOND
        for _ in range(ROUNDS_OF_FEW if world.is_small else ROUNDS):
            page.goto("about:blank")
            shares.take("none", fast=fast)
            world.asked.clear()
            page.goto(address)
            page.locator(".figures li").first.wait_for()
            shares.take("one", fast=fast)
            asked = asked or _routine(world.asked)
            with Readers(_server_of(address), world.headers, asked, READERS) as readers:
                shares.take("ten", fast=fast)
            if readers.errors:
                raise readers.errors[0]
    world.changes.per_second = CHANGES_PER_SECOND
    none, one, ten = (shares.share(kind) for kind in ("none", "one", "ten"))
    return {
        "share: no page": none,
        "share: one page": one - none,
        "share: ten readers": ten - none,
        "per change: no page": shares.per_change("none"),
        "counters: share": world.counters_seconds * shares.transactions_per_cpu_second,
        "per change: with ten / without": shares.per_change("ten") / shares.per_change("none"),
    }


class Window(NamedTuple):
    """Seconds, changes of tasks, and seconds of the server's CPU time."""

    seconds: float
    changes: int
    cpu: float


class _Windows:
    """CPU time of the server, and changes, in windows of several kinds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._found: dict[tuple[str, bool], list[Window]] = {}
        #: Of the server, without a page.
        self.transactions_per_cpu_second = 0.0

    def take(self, kind: str, *, fast: bool) -> None:
        """Settle, then measure for a while."""
        time.sleep(SETTLE_SECONDS)
        world = self._world
        transactions, began = world.transactions(), time.monotonic()
        cpu, changes = world.cpu(), world.changes.changes
        time.sleep(FAST_WINDOW_SECONDS if fast else WINDOW_SECONDS)
        window = Window(time.monotonic() - began, world.changes.changes - changes, world.cpu() - cpu)
        self._found.setdefault((kind, fast), []).append(window)
        if kind == "none" and not fast:
            self.transactions_per_cpu_second = (world.transactions() - transactions) / window.cpu

    def share(self, kind: str) -> float:
        """Return the share of a core while 1,000 tasks change per second."""
        return statistics.median(cpu / seconds for seconds, _, cpu in self._found[kind, False])

    def per_change(self, kind: str) -> float:
        """Return the CPU time per change while many tasks change, microseconds."""
        return 1e6 * statistics.median(cpu / changes for _, changes, cpu in self._found[kind, not self._world.is_small])


def _routine(asked: dict[str, list[float]]) -> list[Asked]:
    """Return what the page goes on requesting: the newest query of each route, and how often."""
    found = [Asked(path, None) for path in asked if path.endswith("/stream")]
    for path, times in asked.items():
        if len(times) > 2:
            found.append(Asked(path, (times[-1] - times[0]) / (len(times) - 1)))
    return found


def _server_of(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or 0


def _matrix(world: World) -> dict[str, float]:
    """Pan over the squares, while tasks change and while nothing does; measure the memory of the page."""
    page = world.page
    page.locator('section[aria-label="All tasks"] summary').click()
    page.locator(".matrix canvas").wait_for()
    page.get_by_role("button", name="Larger").click()
    time.sleep(SETTLE_SECONDS)
    running = page.evaluate(_PAN, [PAN_SECONDS, 12])
    world.changes.per_second = 0
    time.sleep(SETTLE_SECONDS)
    idle = page.evaluate(_PAN, [PAN_SECONDS, 12])
    world.changes.per_second = CHANGES_PER_SECOND
    return {
        "frames: run": running,
        "frames: idle": idle,
        "page bytes": _renderer_bytes(),
        "server bytes": world.server.memory_info().rss,
    }


def _renderer_bytes() -> int:
    """Return the memory of Chromium's largest renderer."""
    sizes = [0]
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "--type=renderer" in child.cmdline():
                sizes.append(child.memory_full_info().uss)
    return max(sizes)


def _counters(database: Path) -> float:
    """Return the CPU time that the counts of tasks cost a transaction, microseconds: two statuses of one array."""
    opened = Database(f"sqlite:///{database}")
    seconds = {True: 0.0, False: 0.0}
    try:
        session = opened.open_session()
        for counts in (True, False):
            kept = StatusCounts()
            began = time.thread_time()
            for number in range(COUNTER_TRANSACTIONS):
                session.begin(writing=True)
                if counts:
                    source, target = (TaskStatus.RUNNING, TaskStatus.DONE)[:: 1 if number % 2 else -1]
                    kept.clear()
                    kept.move(1, 2, source, target)
                    kept.write(session)
                    kept.settle()
                session.rollback()
            seconds[counts] = time.thread_time() - began
        session.close()
    finally:
        opened.close()
    return 1e6 * (seconds[True] - seconds[False]) / COUNTER_TRANSACTIONS


if __name__ == "__main__":
    main()
