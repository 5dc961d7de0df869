"""P11: many open workflows whose tasks run for a long time.

Simulates their orchestrators and distributors as the server sees them: open long polls, and heartbeats at the intervals
of the settings. Prints figures as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING

import psutil

from benchmarks.runs import OpenRun
from jobmon.client.swarm.gateway import ServerGateway
from jobmon.core import access, loops
from jobmon.core.configuration import JobmonConfig
from jobmon.core.requester import Requester
from jobmon.core.wire.launching import Report, SyncRequest, SyncResponse
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX
from jobmon.distributor.process import timings_of
from jobmon.distributor.service import _POLL_SHARE_OF_EXPIRY

if TYPE_CHECKING:
    import aiohttp

WORKFLOWS = 50
SETTLE_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    requester = Requester.from_defaults()
    server = access.ensure_server()
    runs = [OpenRun(requester, f"idle {number}", 1) for number in range(WORKFLOWS)]
    figures = loops.run(_idle(requester, runs, psutil.Process(server.pid), options.seconds))
    access.stop_server()
    print(json.dumps(figures))


async def _idle(requester: Requester, runs: list[OpenRun], server: psutil.Process, seconds: float) -> dict[str, float]:
    config = JobmonConfig()
    async with contextlib.AsyncExitStack() as sessions:
        tasks = []
        for run in runs:
            session = await sessions.enter_async_context(requester.open_session())
            tasks += [asyncio.create_task(part) for part in _parts(run, session, config)]
        await asyncio.sleep(SETTLE_SECONDS)
        cpu, count = sum(server.cpu_times()[:2]), _requests(requester)
        await asyncio.sleep(seconds)
        cpu, count = sum(server.cpu_times()[:2]) - cpu, _requests(requester) - count - 1
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            raise RuntimeError(f"a part ended early: {error!r}")
    return {
        "workflows": len(runs),
        "cpu_percent": 100 * cpu / seconds,
        "requests_per_minute": count / len(runs) * 60 / seconds,
    }


def _requests(requester: Requester) -> int:
    return int(requester.send_request("/metrics", None, "get")[1]["requests"])


def _parts(run: OpenRun, session: aiohttp.ClientSession, config: JobmonConfig):
    gateway = ServerGateway(run.requester, run.workflow_id or 0, run.run_id)
    gateway.set_session(session)
    yield _orchestrator_polls(gateway)
    yield _orchestrator_beats(gateway, config.get_float("heartbeat", "workflow_run_interval"))
    yield _distributor(run, session, timings_of(config).hand_ahead_expiry * _POLL_SHARE_OF_EXPIRY)


async def _orchestrator_polls(gateway: ServerGateway) -> None:
    since = (await gateway.get_task_status_updates()).time
    while True:
        since = (await gateway.get_task_status_updates(since, LONG_POLL_SECONDS_MAX)).time


async def _orchestrator_beats(gateway: ServerGateway, interval: float) -> None:
    while True:
        await gateway.log_heartbeat("R", interval * 3.1)
        await asyncio.sleep(interval)


async def _distributor(run: OpenRun, session: aiohttp.ClientSession, wait_seconds: float) -> None:
    """Simulate the polls of a distributor; the heartbeats of its attempts are sent as separate reports."""
    loop = asyncio.get_running_loop()
    attempts = await asyncio.to_thread(run.launch_all)
    reports = [Report(task_instance_id=attempt, status="R", host="bench") for attempt in attempts]
    await _sync(run, session, SyncRequest(epoch=run.registration.epoch, reports=reports))
    beat_at = loop.time() + run.registration.attempt_heartbeat_interval
    while True:
        if loop.time() >= beat_at:
            beat_at += run.registration.attempt_heartbeat_interval
            await _sync(run, session, SyncRequest(epoch=run.registration.epoch, alive=attempts))
        request = SyncRequest(
            epoch=run.registration.epoch,
            capacity={"multiprocess": 15},
            known_status="R",
            wait_seconds=wait_seconds,
            key=secrets.token_hex(8),
        )
        await _sync(run, session, request)


async def _sync(run: OpenRun, session: aiohttp.ClientSession, request: SyncRequest) -> None:
    timeout = request.wait_seconds + 20
    await run.requester.call_async(session, f"{run.route}/sync", request, SyncResponse, request_timeout=timeout)


if __name__ == "__main__":
    main()
