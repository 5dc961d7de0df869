"""Record when a process passes certain points, for `benchmarks.hops`. Python imports this module automatically.

Each process writes `<role>-<pid>` to the folder in JOBMON_HOPS when it exits, with a line `<monotonic ns> <point>` for
each point. Costs about a microsecond per point.
"""

import atexit
import functools
import importlib.abc
import importlib.machinery
import os
import sys
import time

FOLDER = os.environ.get("JOBMON_HOPS", "")
now = time.monotonic_ns
points = []


def write():
    """Write the recorded points."""
    if points:
        command = sys.orig_argv
        role = next((name for name in ("server", "distributor") if f"jobmon.{name}" in command), "client")
        with open(f"{FOLDER}/{role}-{os.getpid()}", "w", encoding="ascii") as file:
            file.writelines(f"{when} {role}: {point}\n" for when, point in points)


def around(owner, name, point, counts=lambda found: True):
    """Record when a method begins and ends, if its return value counts."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def noted(*arguments, **named):
        begin = now()
        found = method(*arguments, **named)
        if counts(found):
            points.extend([(begin, f"{point} begins"), (now(), f"{point} ends")])
        return found

    setattr(owner, name, noted)


def _http(module):
    exchange = module.HttpSession.exchange

    async def noted(self, method, path, body, *more):
        what = path.partition("?")[0].rpartition("/")[2]
        if what == "sync":
            what = "report" if b'"reports":[{' in body else "poll"
        points.append((now(), f"{what} sent"))
        try:
            return await exchange(self, method, path, body, *more)
        finally:
            points.append((now(), f"{what} answered"))

    module.HttpSession.exchange = noted


def _endpoint(module):
    call = module.Endpoint.__call__

    async def noted(self, scope, receive, send):
        what = scope["path"].rpartition("/")[2]
        points.append((now(), f"{what} seen"))
        try:
            return await call(self, scope, receive, send)
        finally:
            points.append((now(), f"{what} done"))

    module.Endpoint.__call__ = noted


def _writer(module):
    around(module.Writer, "_submit", "hand-over")
    around(module.Writer, "_commit", "transaction")
    around(module.Writer, "_answer", "telling")


def _transaction(module):
    around(module.Transaction, "commit", "commit")


PATCHES = {
    "jobmon.core.http": _http,
    "jobmon.server.routes.endpoint": _endpoint,
    "jobmon.server.writer": _writer,
    "jobmon.server.transaction": _transaction,
}


class Finder(importlib.abc.MetaPathFinder):
    """Patches modules when they are loaded."""

    def find_spec(self, name, path, target=None):
        """Find the module as usual, and patch it on loading."""
        patch = PATCHES.get(name)
        if patch is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


if FOLDER:
    atexit.register(write)
    sys.meta_path.insert(0, Finder())
