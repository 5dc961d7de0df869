"""Head and body of a response are sent together and completely."""

import asyncio

import pytest

from jobmon.server.gathering import GatheringTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Transport:
    """Records what is written, and whether it is closed."""

    def __init__(self):
        self.written = []
        self.limits = None

    def write(self, data):
        self.written.append(data)

    def close(self):
        self.written.append("closed")

    def set_write_buffer_limits(self, high):
        self.limits = high


@pytest.fixture
async def transports():
    beneath = Transport()
    return beneath, GatheringTransport(beneath, asyncio.get_running_loop())


async def test_head_and_body_are_one_write(transports):
    beneath, transport = transports
    transport.write(HEAD)
    assert beneath.written == []
    transport.write(b"body")
    transport.write(b"more")
    await asyncio.sleep(0)
    assert beneath.written == [HEAD + b"body", b"more"]


async def test_a_head_alone_goes_out_in_the_next_turn_of_the_loop(transports):
    beneath, transport = transports
    transport.write(HEAD)
    await asyncio.sleep(0)
    transport.write(b"body")
    assert beneath.written == [HEAD, b"body"]


async def test_a_head_goes_out_before_the_end(transports):
    beneath, transport = transports
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert beneath.written == [HEAD, "closed"]


async def test_everything_else_is_passed_on(transports):
    beneath, transport = transports
    transport.set_write_buffer_limits(7)
    assert beneath.limits == 7
