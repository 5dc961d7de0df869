"""Reports of an agent: each is settled once, kept until then, and set aside if the server rejects it."""

from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent import settlement
from jobmon.agent.outbox import REPORTS_PER_REQUEST_MAX, Outbox


def report(identity, **values):
    return {"task_instance_id": identity, "status": "D", **values}


def filled(count):
    outbox = Outbox()
    for number in range(count):
        outbox.add(report(number))
    return outbox


def test_what_is_kept_is_sent_again_in_its_order():
    outbox = filled(3)
    sent = list(outbox.take())
    outbox.add(report(9))
    assert outbox.settle(settlement.KEPT) == ((), ())
    assert [one["task_instance_id"] for one in outbox.take()] == [0, 1, 2, 9]
    assert sent == outbox.all[:3]


def test_an_unknown_attempt_is_set_aside_and_the_others_are_settled():
    outbox = filled(3)
    outbox.take()
    settled, aside = outbox.settle(settlement.SETTLED, {1})
    assert [one["task_instance_id"] for one in settled] == [0, 2]
    assert [one["task_instance_id"] for one in aside] == [1]
    assert len(outbox) == 0


def test_a_faulty_report_is_found_by_halving_and_set_aside():
    outbox, aside = filled(8), []
    while len(outbox):
        sent = outbox.take()
        is_faulty = any(one["task_instance_id"] == 5 for one in sent)
        aside += outbox.settle(settlement.FAULTY if is_faulty else settlement.SETTLED)[1]
    assert [one["task_instance_id"] for one in aside] == [5]


def test_a_report_that_is_too_large_loses_its_log_tail_first():
    outbox = Outbox()
    outbox.add(report(1, log_tail="x" * 100))
    outbox.take()
    outbox.settle(settlement.TOO_LARGE)
    (sent,) = outbox.take()
    assert sent["log_tail"] is None

    outbox.add(report(2))
    assert outbox.settle(settlement.TOO_LARGE) == ((), ())
    assert outbox.all == [report(2), sent], "something else than our server refused it: it is sent after the others"


VERDICTS = st.sampled_from(
    [settlement.SETTLED, settlement.KEPT, settlement.TOO_LARGE, settlement.FAULTY, settlement.DOUBTED, settlement.OVER]
)


@given(st.integers(0, 30), st.lists(VERDICTS, max_size=40))
def test_no_report_is_lost_or_settled_twice(count, verdicts):
    outbox, done = filled(count), []
    for verdict in verdicts:
        assert len(outbox.take()) <= REPORTS_PER_REQUEST_MAX
        settled, aside = outbox.settle(verdict)
        done += [one["task_instance_id"] for one in (*settled, *aside)]
    left = [one["task_instance_id"] for one in outbox.all]
    assert sorted(done + left) == list(range(count))
