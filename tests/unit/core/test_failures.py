"""What failures have in common, and whether that exceeds chance."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobmon.core.failures import STALE_MAX, Failure, Groups, Share, chance_of, concentrations, normalized

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cannot read /data/17.csv: line 3", "cannot read /home/me/x_2.csv: line 44"),
        ("Traceback\n  File 3\nKeyError: 'a1'", "Traceback\n  other\nKeyError: 'a22'"),
        ("bad pointer 0x7ffe12", "bad pointer 0xDEADBEEF"),
        ("object 6f1c2a9b-1111-4a2b-9c3d-aaaabbbbcccc is gone", "object 0a1b2c3d-2222-4a2b-9c3d-ddddeeeeffff is gone"),
        ("loss is 1.5e-3 after 3 epochs", "loss is 22 after 4 epochs"),
        ("", "  \n"),
    ],
)
def test_messages_that_differ_in_figures_only_are_one(one, other):
    assert normalized(one) == normalized(other)


def test_words_stay():
    assert normalized("no such file: deadbeat and/or x") != normalized("no such file: other")
    assert normalized("permission denied") == "permission denied"


def failure(number, host="n1", message="line 3", exit_code=1, template="t"):
    return Failure(
        attempt_id=number,
        task_id=number,
        task_name=f"t{number}",
        template=template,
        ended_at=START + timedelta(seconds=number),
        message=message,
        host=host,
        exit_code=exit_code,
    )


def test_groups_are_by_template_ending_and_message_largest_first():
    groups = Groups(
        [failure(1), failure(2, message="line 9", host="n2"), failure(3, exit_code=2), failure(4, template="other")]
    ).largest()
    assert [(group.count, group.template, group.ending) for group in groups] == [
        (2, "t", "exit code 1"),
        (1, "other", "exit code 1"),
        (1, "t", "exit code 2"),
    ]
    assert (groups[0].example.attempt_id, groups[0].first_at) == (2, START + timedelta(seconds=1))
    assert dict(groups[0].hosts) == {"n1": 1, "n2": 1}


def test_groups_from_which_failures_were_discarded_are_those_of_the_rest():
    chance = random.Random(1)
    groups, left = Groups(), {}
    for number in range(1, 3 * STALE_MAX):
        one = failure(number, host=f"n{number % 7}", exit_code=number % 3)
        one = replace(one, ended_at=START + timedelta(seconds=chance.randrange(1_000)))
        groups.add(one)
        left[number] = one
        while len(left) > 40 or chance.random() < 0.2:
            gone = min(left) if chance.random() < 0.9 else max(left)
            groups.discard(gone)
            del left[gone]
            if not left:
                break
        if number % 50 == 0:
            assert groups.attempt_ids == left.keys()
            assert len(groups) == len({one.exit_code for one in left.values()})
            expected = Groups(left.values()).largest(2)
            shown = groups.largest(2)
            assert [replace(one, hosts=()) for one in shown] == [replace(one, hosts=()) for one in expected]
            assert [sorted(count for _, count in one.hosts) for one in shown] == [
                sorted(count for _, count in one.hosts) for one in expected
            ]
    assert all(len(one._newest) <= STALE_MAX + 100 for one in groups._groups.values())


@pytest.mark.parametrize(
    ("failed", "count", "failures", "total"), [(3, 3, 3, 6), (2, 5, 4, 20), (0, 4, 3, 9), (7, 8, 9, 30)]
)
def test_chance_is_the_exact_one(failed, count, failures, total):
    exact = sum(
        math.comb(count, k) * math.comb(total - count, failures - k) for k in range(failed, min(count, failures) + 1)
    ) / math.comb(total, failures)
    assert chance_of(failed, count, failures, total) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("figures", [(4, 3, 5, 10), (1, 10, 1, 10), (0, 9, 5, 10), (1, 11, 5, 10)])
def test_figures_that_say_nothing(figures):
    assert chance_of(*figures) is None


def test_a_bad_host_is_told_and_the_number_tried_counts():
    hosts = [Share(what="host", value="n217", failed=31, count=40)]
    hosts += [Share(what="host", value=f"n{n}", failed=1, count=40) for n in (1, 2)]
    (found,) = concentrations(hosts, 33, 120, tried=3)
    assert (found.share.value, found.failures) == ("n217", 33)
    mild = [Share(what="host", value="n1", failed=5, count=10)]
    assert len(concentrations(mild, 6, 60, tried=1)) == 1
    assert concentrations(mild, 6, 60, tried=1000) == []
