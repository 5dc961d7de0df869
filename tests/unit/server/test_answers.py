import asyncio
import gzip

import pytest

from jobmon.server.answers import AGE_SECONDS_MAX, ANSWER_BYTES_MAX, ANSWERS_MAX, Answer, Answers, age_seconds_of

FOREVER = 1e9


class Database:
    """A version, a time, and answers that wait until they are let go."""

    def __init__(self):
        self.version = 0
        self.seconds = 0.0
        self.gate = asyncio.Event()
        self.answers = Answers(lambda: self.version, lambda: self.seconds)

    async def compute(self):
        seen = self.version
        await self.gate.wait()
        return b"%d" % seen

    def ask(self, question="q", **bounds):
        wanted = {"age_seconds": 0.0, "unchanged_seconds": FOREVER, **bounds}
        return asyncio.ensure_future(self.answers.answer(question, self.compute, **wanted))


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_readers_who_ask_at_once_share_one_computation():
    database = Database()
    asked = [database.ask() for _ in range(8)]
    await settled()
    database.gate.set()
    assert {(await one).content for one in asked} == {b"0"}
    assert database.answers.computed == 1


async def test_a_reader_sees_what_was_written_before_it_asked_and_at_most_one_more_computation_waits():
    database = Database()
    first = database.ask()
    await settled()
    later = []
    for version in (1, 2, 3):
        database.version = version
        later.append(database.ask())
        await settled()
    database.gate.set()
    assert (await first).content == b"0"
    assert {(await one).content for one in later} == {b"3"}
    assert database.answers.computed == 2


async def test_an_answer_holds_while_nothing_is_written_and_no_longer_than_the_route_says():
    database = Database()
    database.gate.set()
    await database.ask()
    database.seconds = 5.0
    await database.ask()
    assert database.answers.computed == 1
    await database.ask(unchanged_seconds=2.0)
    assert database.answers.computed == 2
    database.version = 1
    assert (await database.ask()).content == b"1"


async def test_an_older_answer_is_given_only_to_who_accepts_it_and_within_the_bound():
    database = Database()
    database.gate.set()
    await database.ask()
    database.version, database.seconds = 1, 0.9
    assert (await database.ask(age_seconds=1.0)).content == b"0"
    assert (await database.ask()).content == b"1"
    database.version, database.seconds = 2, 0.9 + AGE_SECONDS_MAX
    assert (await database.ask(age_seconds=1e6)).content == b"2"


async def test_an_error_reaches_all_who_wait_and_is_not_kept():
    database = Database()

    async def fail():
        await database.gate.wait()
        raise LookupError("no such workflow")

    asked = [
        asyncio.ensure_future(database.answers.answer("q", fail, age_seconds=0.0, unchanged_seconds=FOREVER))
        for _ in range(3)
    ]
    await settled()
    database.version = 1
    after = database.ask()
    await settled()
    database.gate.set()
    for one in asked:
        with pytest.raises(LookupError):
            await one
    assert (await after).content == b"1"


async def test_what_is_kept_is_bounded():
    database = Database()
    database.gate.set()
    for number in range(ANSWERS_MAX + 1):
        await database.ask(number)
    await database.ask(ANSWERS_MAX)
    assert database.answers.computed == ANSWERS_MAX + 1
    await database.ask(0)
    assert database.answers.computed == ANSWERS_MAX + 2

    async def large():
        return b"x" * (ANSWER_BYTES_MAX + 1)

    for _ in range(2):
        await database.answers.answer("large", large, age_seconds=0.0, unchanged_seconds=FOREVER)
    assert database.answers.computed == ANSWERS_MAX + 4


def test_only_what_is_worth_it_is_compressed_and_equal_content_has_one_tag():
    assert Answer(b"x", 0, 0.0).compressed == b""
    large = b"x" * 10_000
    assert gzip.decompress(Answer(large, 0, 0.0).compressed) == large
    assert Answer(large, 0, 0.0).tag == Answer(large, 7, 3.0).tag != Answer(b"x", 0, 0.0).tag


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(b"", 0), (b"max-age=1", 1), (b"no-cache, Max-Age=2", 2), (b"max-age=-1", 0), (b"max-age=" + b"9" * 99, 0)],
)
def test_the_age_that_a_reader_accepts_is_read_from_its_header(header, seconds):
    assert age_seconds_of(header) == seconds
