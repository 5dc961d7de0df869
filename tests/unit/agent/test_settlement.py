"""When a report is settled: the table of answers."""

import pytest

from jobmon.agent import settlement
from jobmon.agent.settlement import DOUBTED, FAULTY, KEPT, OVER, SETTLED, TOO_LARGE, UNKNOWN, judge
from jobmon.core import exceptions

OURS = {"server_identity": "cafe"}


def problem(kind, **more):
    return {"kind": kind, "message": "no", **more}


def is_expected(content):
    return isinstance(content.get("kill", []), list)


@pytest.mark.parametrize(
    ("status", "content", "verdict"),
    [
        (200, {"kill": []}, SETTLED),
        (201, {}, SETTLED),
        (200, {"kill": 7}, KEPT),
        (200, None, KEPT),
        (200, [], KEPT),
        (200, "ok", KEPT),
        (204, None, KEPT),
        (302, {"kill": []}, KEPT),
        (409, problem("AttemptOver"), OVER),
        (200, problem("AttemptOver"), SETTLED),
        (404, problem("AttemptUnknown"), UNKNOWN),
        (404, problem("NotFound"), KEPT),
        (404, {"kind": "AttemptUnknown"}, KEPT),
        (413, None, TOO_LARGE),
        (413, problem("InvalidRequest"), TOO_LARGE),
        (400, problem("ValidationError"), FAULTY),
        (422, problem("ValidationError"), FAULTY),
        (400, None, DOUBTED),
        (422, {"message": "no"}, DOUBTED),
        *((status, None, KEPT) for status in (401, 403, 404, 405, 407, 408, 411, 418, 421, 429, 500, 502, 503, 504)),
        *((status, problem("Unauthorized"), KEPT) for status in (401, 403, 409, 429, 500, 503)),
    ],
)
def test_the_verdict_on_an_answer(status, content, verdict):
    assert judge(status, content, "", is_expected) == verdict


@pytest.mark.parametrize(
    ("status", "content", "verdict", "of_another"),
    [
        (200, {"kill": []}, SETTLED, KEPT),
        (409, problem("AttemptOver"), OVER, KEPT),
        (404, problem("AttemptUnknown"), UNKNOWN, KEPT),
        (422, problem("ValidationError"), FAULTY, DOUBTED),
    ],
)
def test_once_the_server_has_named_itself_only_its_answers_count(status, content, verdict, of_another):
    assert judge(status, {**content, **OURS}, "cafe", is_expected) == verdict
    assert judge(status, {**content, "server_identity": "beef"}, "cafe", is_expected) == of_another
    assert judge(status, content, "cafe", is_expected) == of_another


def test_the_kinds_are_those_of_the_exceptions():
    assert exceptions.AttemptOver.__name__ == settlement.ATTEMPT_OVER
    assert exceptions.AttemptUnknown.__name__ == settlement.ATTEMPT_UNKNOWN


def test_pauses_grow_up_to_a_bound_and_begin_again_after_success():
    pauses = settlement.Pauses()
    found = [pauses.next() for _ in range(10)]
    assert found == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0]
    pauses.reset()
    assert pauses.next() == settlement.PAUSE_SECONDS_FIRST


def test_a_pause_that_was_asked_for_is_bounded():
    assert [settlement.asked_pause(seconds) for seconds in (-1.0, 0.0, 7.0, 1e9)] == [0.0, 0.0, 7.0, 60.0]


def test_trouble_is_said_once_per_kind_and_minute():
    said = settlement.Said()
    assert [said.is_due("disk", at) for at in (0.0, 1.0, 59.9, 60.0, 61.0)] == [True, False, False, True, False]
    assert said.is_due("line", 61.0)
    assert all(said.is_due(str(kind), 62.0) for kind in range(settlement.SAID_KINDS_MAX))


def test_a_single_report_that_is_too_large_is_shortened_and_one_that_is_faulty_is_set_aside():
    portion = settlement.Portion(100)
    assert portion.follow(TOO_LARGE, 1, 10) == settlement.SHORTEN
    assert portion.follow(FAULTY, 1, 10) == settlement.SET_ASIDE
    assert portion.follow(UNKNOWN, 1, 10) == settlement.SET_ASIDE
    assert portion.follow(OVER, 1, 10) == settlement.FORGET
    assert portion.follow(DOUBTED, 1, 10) == settlement.POSTPONE
    assert portion.follow(KEPT, 1, 10) == settlement.REPEAT


def test_a_request_without_reports_is_only_repeated():
    portion = settlement.Portion(100)
    assert {portion.follow(verdict, 0, 0) for verdict in (OVER, UNKNOWN, TOO_LARGE, FAULTY, DOUBTED, KEPT)} == {
        "repeat"
    }
    assert not portion.is_narrowed


def test_a_limit_on_bytes_is_remembered():
    portion = settlement.Portion(100, bytes_max=1000)
    assert portion.fitting([100] * 50) == 10
    portion.follow(TOO_LARGE, 10, 1000)
    for _ in range(10):
        portion.follow(SETTLED, 5, 500)
    assert portion.fitting([100] * 50) == 5


def test_what_is_larger_than_a_request_goes_alone():
    assert settlement.Portion(100, bytes_max=10).fitting([50, 1]) == 1
    assert settlement.Portion(100, bytes_max=10).fitting([]) == 0
