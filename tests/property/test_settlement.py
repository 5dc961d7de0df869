"""Reports against servers and proxies that reject some: each is recorded or set aside with a reason; none is lost."""

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent import settlement
from jobmon.agent.settlement import DOUBTED, FAULTY, KEPT, OVER, SETTLED, TOO_LARGE, UNKNOWN

REQUESTS_MAX = 3_000


@dataclass
class Report:
    number: int
    size: int
    tail: int
    fate: str = SETTLED


@dataclass
class Server:
    """Takes requests up to so many bytes; its words come true only for the reports that deserve them."""

    bytes_max: int
    outages: deque
    doubts: int

    def answer(self, reports):
        if self.outages and self.outages.popleft():
            return KEPT
        if sum(one.size + one.tail for one in reports) > self.bytes_max:
            return TOO_LARGE
        fates = {one.fate for one in reports} - {SETTLED}
        if fates == {DOUBTED} and self.doubts > 0:
            self.doubts -= 1
            return DOUBTED
        fates.discard(DOUBTED)
        return min(fates, default=SETTLED)


_reports = st.lists(
    st.builds(
        Report,
        number=st.just(0),
        size=st.integers(1, 60),
        tail=st.integers(0, 400),
        fate=st.sampled_from([SETTLED] * 6 + [OVER, UNKNOWN, FAULTY, DOUBTED]),
    ),
    max_size=60,
)


@given(
    _reports,
    st.integers(60, 2_000),
    st.lists(st.booleans(), max_size=20).map(deque),
    st.integers(0, 20),
    st.integers(1, 20),
    st.integers(1, 1_000),
)
def test_each_report_ends_where_it_belongs(reports, bytes_max, outages, doubts, count_max, portion_bytes):
    for number, report in enumerate(reports):
        report.number = number
    server = Server(bytes_max, outages, doubts)
    portion = settlement.Portion(count_max, portion_bytes)
    outbox, recorded, aside, shortened = deque(reports), [], [], set()
    for _ in range(REQUESTS_MAX):
        if not outbox:
            break
        count = portion.fitting(one.size + one.tail for one in outbox)
        sent = [outbox.popleft() for _ in range(count)]
        size = sum(one.size + one.tail for one in sent)
        assert 1 <= count <= count_max
        assert count == 1 or size <= portion_bytes
        verdict = server.answer(sent)
        action = portion.follow(verdict, count, size)
        if action == settlement.FORGET:
            recorded += sent
        elif action == settlement.SET_ASIDE:
            aside += sent
        elif action == settlement.SHORTEN:
            sent[0].tail = 0
            shortened.add(sent[0].number)
            outbox.appendleft(sent[0])
        elif action == settlement.POSTPONE:
            outbox += sent
        else:
            outbox.extendleft(reversed(sent))
    assert not outbox, "it comes to an end"
    assert sorted(one.number for one in (*recorded, *aside)) == list(range(len(reports)))
    assert {one.fate for one in recorded} <= {SETTLED, OVER, DOUBTED}
    assert {one.fate for one in aside} <= {UNKNOWN, FAULTY}
