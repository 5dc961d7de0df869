"""P10: many stand-alone workers report concurrently, each as soon as it got its response. Prints figures as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time

import psutil

from benchmarks.runs import OpenRun
from jobmon.core import access, loops
from jobmon.core.requester import Requester

WORKERS = 64
TASKS_PER_WORKFLOW = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, required=True)
    options = parser.parse_args()
    requester = Requester.from_defaults()
    server = access.ensure_server()
    attempts: list[int] = []
    while len(attempts) < options.reports:
        count = min(TASKS_PER_WORKFLOW, options.reports - len(attempts))
        attempts += OpenRun(requester, f"reports from {len(attempts)}", count).launch_all()
    process = psutil.Process(server.pid)
    before = sum(process.cpu_times()[:2])
    seconds, waits = loops.run(_report_all(server.address, server.token, attempts))
    used = sum(process.cpu_times()[:2]) - before
    waits.sort()
    access.stop_server()
    figures = {
        "workers": WORKERS,
        "per_second": len(attempts) / seconds,
        "p50_seconds": waits[len(waits) // 2],
        "p99_seconds": waits[int(len(waits) * 0.99)],
        "cpu_seconds_per_report": used / len(attempts),
    }
    print(json.dumps(figures))


async def _report_all(address: str, token: str, attempts: list[int]) -> tuple[float, list[float]]:
    """Share the attempts among the workers; return the total time and the time of each response."""
    waits: list[float] = []
    start = time.perf_counter()
    shares = [attempts[number::WORKERS] for number in range(WORKERS)]
    await asyncio.gather(*(_worker(address, token, share, waits) for share in shares))
    return time.perf_counter() - start, waits


async def _worker(address: str, token: str, attempts: list[int], waits: list[float]) -> None:
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for attempt in attempts:
        start = time.perf_counter()
        writer.write(_request(host, token, attempt))
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the server answered {status!r}")
        await _skip(reader)
        waits.append(time.perf_counter() - start)
    writer.close()


def _request(host: str, token: str, attempt: int) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report = {
        "task_instance_id": attempt,
        "status": "D",
        "distributor_id": str(attempt),
        "host": "bench",
        "pid": os.getpid(),
        "started_at": now,
        "ended_at": now,
        "exit_code": 0,
        "wallclock_seconds": 0.1,
        "cpu_seconds": 0.1,
        "max_rss_bytes": 10_000_000,
    }
    body = json.dumps({"reports": [report], "alive": []})
    head = (
        f"POST /api/v1/worker/report HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


async def _skip(reader: asyncio.StreamReader) -> None:
    """Read a response to its end."""
    length = 0
    while (line := await reader.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    await reader.readexactly(length)


if __name__ == "__main__":
    main()
