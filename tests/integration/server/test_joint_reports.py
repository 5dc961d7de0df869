"""Reports of many workers that arrive together are processed jointly; each worker receives only its own answer."""

import asyncio
import threading
from functools import partial

import pytest
from server_world import TI, report

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.launching import REPORTS_PER_REQUEST_MAX, WorkerReportRequest
from jobmon.server.problems import InvalidValue
from jobmon.server.transitions import move_all
from jobmon.server.usecases.reporting import worker_reports


async def together(writer, requests):
    """Send requests while the writer is busy, so that it takes them all at once; return answers and exceptions."""
    may_go_on = threading.Event()
    busy = asyncio.create_task(writer.run(lambda tx: may_go_on.wait(30)))
    before = writer.transactions
    sent = [asyncio.create_task(writer.run_jointly(worker_reports, request)) for request in requests]
    await asyncio.sleep(0)
    assert writer.waiting == 1 + len(requests)
    may_go_on.set()
    answers = await asyncio.gather(*sent, return_exceptions=True)
    assert await busy
    return answers, writer.transactions - before


@pytest.fixture
async def running(world):
    """Five attempts that are running."""
    bound = await world.bound(5)
    run = await bound.start()
    await run.register()
    await run.queue()
    attempts = (await run.launched()).task_instance_ids
    await run.sync(*(report(attempt, TI.RUNNING) for attempt in attempts))
    return bound, run, attempts


async def test_each_worker_receives_its_own_answer(world, running):
    bound, _, attempts = running
    writer = world.app.state.services.writer
    await writer.run(partial(move_all, ids=attempts[3:], target=TI.KILL_SELF, cause=None))
    requests = [
        WorkerReportRequest(reports=[report(attempts[0], TI.DONE), report(999_999, TI.DONE)]),
        WorkerReportRequest(reports=[report(attempts[1], "X")]),
        WorkerReportRequest(alive=[attempts[2], attempts[3]]),
        WorkerReportRequest(reports=[report(attempts[4], TI.RUNNING)]),
        WorkerReportRequest(alive=[attempts[0]]),
    ]
    answers, transactions = await together(writer, requests)
    assert transactions <= 2, "the reports share one transaction"
    assert [answer.kill for answer in answers] == [[], [], [attempts[3]], [attempts[4]], [attempts[0]]]
    assert [answer.unknown for answer in answers] == [[999_999], [], [], [], []]
    assert [list(answer.refused) for answer in answers] == [[999_999], [attempts[1]], [], [], []]
    assert (await bound.statuses())[bound.task_ids[0]] == "D"


async def test_a_faulty_request_fails_alone(world, running):
    bound, _, attempts = running
    too_many = WorkerReportRequest(alive=list(range(1, REPORTS_PER_REQUEST_MAX + 2)))
    good = WorkerReportRequest(reports=[report(attempts[0], TI.DONE)])
    answers, _ = await together(world.app.state.services.writer, [good, too_many])
    assert answers[0].kill == []
    assert isinstance(answers[1], InvalidValue)
    assert (await bound.statuses())[bound.task_ids[0]] == "D"


async def test_a_repeated_report_in_one_transaction_counts_once(world, running):
    bound, _, attempts = running
    failed = WorkerReportRequest(reports=[report(attempts[0], TI.ERROR, error="no")])
    answers, _ = await together(world.app.state.services.writer, [failed, failed])
    assert [answer.refused for answer in answers] == [{}, {}]
    rows = world.rows("SELECT num_attempts, status FROM task WHERE id = :id", id=bound.task_ids[0])
    assert rows == [(1, TaskStatus.REGISTERING.value)]
