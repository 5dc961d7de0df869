"""The open requests of a distributor at the server."""

import asyncio

from jobmon.core.wire.launching import DistributorRequest, SyncRequest
from jobmon.distributor.requests import POLLS_MAX, OpenRequests

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


def open_requests():
    server = Server()
    return server, OpenRequests(server, asyncio.Event())


def poll(**capacity):
    return SyncRequest(epoch=1, capacity=capacity)


async def test_one_poll_is_always_open_and_another_where_it_asks_for_as_much_again():
    _, requests = open_requests()
    assert requests.is_poll_wanted({})
    requests.poll(poll(here=4))
    assert requests.unasked({"here": 7, "there": 1}) == {"here": 3, "there": 1}
    assert not requests.is_poll_wanted({"here": 3})
    assert requests.is_poll_wanted({"here": 4})
    for _ in range(POLLS_MAX - 1):
        requests.poll(poll(here=4))
    assert not requests.is_poll_wanted({"here": 400})
    await requests.hang_up()


async def test_no_other_poll_while_the_answer_to_a_report_may_bring_work():
    _, requests = open_requests()
    requests.poll(poll(here=1))
    requests.report(poll())
    assert requests.is_reporting
    assert not requests.is_poll_wanted({"here": 9})
    await requests.hang_up()


async def test_two_polls_that_fail_at_once_end_in_one_registration():
    server, requests = open_requests()
    requests.poll(poll(here=1))
    requests.poll(poll(here=1))
    await settle()
    for answer in server.answers:
        answer.set_exception(OSError("the server is gone"))
    await settle()
    assert isinstance(requests.take_poll().exception(), OSError)
    assert not requests.register(REGISTRATION)
    assert requests.take_poll() is None
    assert requests.is_registering
    await settle()
    assert requests.take_registration().result() == "registered"
    assert not requests.is_registering
    assert server.registered == 1


async def test_a_registration_says_whether_reports_are_in_doubt():
    _, requests = open_requests()
    requests.report(poll())
    assert requests.register(REGISTRATION)
    assert not requests.is_reporting
    await requests.hang_up()
    assert not requests.is_registering
