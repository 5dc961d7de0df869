"""The requests of a distributor that are open at the server."""

import asyncio

from jobmon.core.wire.launching import DistributorRequest, SyncRequest
from jobmon.distributor.lanes import POLLS_MAX, Lanes

REGISTRATION = DistributorRequest(host="h", pid=1, pid_start_time=1.0, key="k")


class Server:
    """Answers when told to."""

    def __init__(self):
        self.answers = []
        self.registered = 0

    async def sync(self, request):
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return await answer

    async def register(self, request):
        self.registered += 1
        return "registered"


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def open_lanes():
    server = Server()
    return server, Lanes(server, asyncio.Event())


def poll(**capacity):
    return SyncRequest(epoch=1, capacity=capacity)


async def test_one_poll_is_always_open_and_another_where_it_asks_for_as_much_again():
    _, lanes = open_lanes()
    assert lanes.is_poll_wanted({})
    lanes.poll(poll(here=4))
    assert lanes.unasked({"here": 7, "there": 1}) == {"here": 3, "there": 1}
    assert not lanes.is_poll_wanted({"here": 3})
    assert lanes.is_poll_wanted({"here": 4})
    for _ in range(POLLS_MAX - 1):
        lanes.poll(poll(here=4))
    assert not lanes.is_poll_wanted({"here": 400})
    await lanes.hang_up()


async def test_no_other_poll_while_the_answer_to_a_report_may_bring_work():
    _, lanes = open_lanes()
    lanes.poll(poll(here=1))
    lanes.report(poll())
    assert lanes.is_reporting
    assert not lanes.is_poll_wanted({"here": 9})
    await lanes.hang_up()


async def test_two_polls_that_fail_at_once_end_in_one_registration():
    server, lanes = open_lanes()
    lanes.poll(poll(here=1))
    lanes.poll(poll(here=1))
    await settle()
    for answer in server.answers:
        answer.set_exception(OSError("the server is gone"))
    await settle()
    assert isinstance(lanes.take_poll().exception(), OSError)
    assert not lanes.register(REGISTRATION)
    assert lanes.take_poll() is None
    assert lanes.is_registering
    await settle()
    assert lanes.take_registration().result() == "registered"
    assert not lanes.is_registering
    assert server.registered == 1


async def test_a_registration_says_whether_reports_are_in_doubt():
    _, lanes = open_lanes()
    lanes.report(poll())
    assert lanes.register(REGISTRATION)
    assert not lanes.is_reporting
    await lanes.hang_up()
    assert not lanes.is_registering
