"""The queue of submissions: nothing is lost or submitted twice, and failures delay only their own kind."""

import itertools
import random

import pytest

from jobmon.core.wire.launching import LaunchBatch
from jobmon.distributor.backoff import PAUSE_SECONDS_MAX
from jobmon.distributor.inflight import NO_ARRAY
from jobmon.distributor.submissions import FAILED_KEYS_MAX, Setback, Submission, SubmissionQueue

PATIENCE = 600.0


def batch(*ids, number=1, array=1, **requested):
    return LaunchBatch(
        batch_number=number,
        array_id=array,
        array_name="array",
        cluster_name="yard",
        queue_name="default",
        requested_resources=requested,
        task_instance_ids=list(ids),
        task_ids=list(ids),
        names=[f"t{one}" for one in ids],
        commands=["true" for _ in ids],
        attempts=[1 for _ in ids],
    )


def ids_of(submissions):
    return [list(one.batch.task_instance_ids) for one in submissions]


def queue_of(*batches, now=0.0):
    queue = SubmissionQueue(PATIENCE)
    queue.add(batches, now)
    return queue


def test_the_rest_of_an_array_keeps_its_steps_where_the_cluster_can_continue_one():
    whole = Submission(batch(1, 2, 3, 4))
    rest = whole.rest({3, 4}, as_array=True)
    assert (rest.first_step, rest.batch.task_instance_ids, rest.batch.batch_number) == (2, [3, 4], 1)
    single = whole.rest({2, 4}, as_array=True)
    assert (single.batch.batch_number, single.batch.task_instance_ids) == (NO_ARRAY, [2, 4])
    assert whole.rest({3, 4}, as_array=False).batch.batch_number == NO_ARRAY
    assert {whole.key, rest.key, single.key} == {whole.key}


def test_what_was_split_is_joined_again():
    head, tail = Submission(batch(1, 2, 3, 4, 5)).split(2)
    assert ids_of([head, tail]) == [[1, 2], [3, 4, 5]]
    assert tail.first_step == 2
    joined = head.followed_by(tail)
    assert (joined.batch.task_instance_ids, joined.first_step) == ([1, 2, 3, 4, 5], 0)
    assert tail.followed_by(head) is None


def test_a_full_cluster_is_probed_with_one_then_two_then_four():
    queue = queue_of(batch(*range(1, 31)))
    (whole,) = queue.take(0.0)
    rest = whole.rest(set(range(8, 31)), as_array=True)
    queue.accepted({whole.key: 7}, 0.0)
    assert queue.set_back(rest, Setback.FULL, "full", 0.0) == []
    queue.round_over(0.0, is_away=False)
    assert queue.is_full
    assert queue.take(0.5) == []
    sizes = []
    for _ in range(3):
        (probe,) = queue.take(queue.due() or 0.0)
        sizes.append(probe.most)
        head, tail = probe.split(probe.most)
        queue.put_back([tail])
        queue.accepted({head.key: len(head.batch.task_instance_ids)}, 1.0)
        queue.round_over(1.0, is_away=False)
    assert sizes == [1, 2, 4]


def test_a_job_of_ours_that_exits_makes_room_at_once_for_as_many():
    queue = queue_of(batch(*range(1, 31)))
    (whole,) = queue.take(0.0)
    queue.set_back(whole, Setback.FULL, "full", 0.0)
    queue.round_over(0.0, is_away=False)
    queue.exited(3)
    (one,) = queue.take(0.1)
    assert one.most == 3
    head, tail = one.split(3)
    queue.put_back([tail])
    queue.accepted({head.key: 3}, 0.1)
    queue.round_over(0.1, is_away=False)
    assert queue.take(0.2) == [], "that room is taken"


def test_a_full_cluster_is_tried_seldom_and_for_as_long_as_it_takes():
    queue, now, tries = queue_of(batch(1, 2)), 0.0, 0
    while now < 7_200:
        for one in queue.take(now):
            tries += 1
            assert queue.set_back(one, Setback.FULL, "full", now) == []
        queue.round_over(now, is_away=False)
        now = max(now + 0.001, queue.due())
    assert tries < 7_200 / PAUSE_SECONDS_MAX + 10
    assert queue.attempts() == [1, 2]


def test_what_fails_for_an_unknown_reason_is_retried_with_pauses_and_then_rejected_with_it():
    queue, now, times, rejected = queue_of(batch(1, 2)), 0.0, [], []
    while not rejected:
        for one in queue.take(now):
            times.append(now)
            rejected = queue.set_back(one, Setback.DEFERRED, "I/O error", now)
        queue.round_over(now, is_away=False)
        now = max(now + 0.001, queue.due() or 0.0)
    assert [round(later - earlier) for earlier, later in itertools.pairwise(times)][:6] == [1, 2, 4, 8, 16, 32]
    assert ids_of(rejected) == [[1, 2]]
    assert PATIENCE <= times[-1] <= PATIENCE + PAUSE_SECONDS_MAX
    assert not queue


def test_each_attempt_has_the_whole_time_however_long_others_like_it_have_failed():
    queue = queue_of(batch(1))
    for now in (0.0, 100.0, 500.0):
        for one in queue.take(now):
            queue.set_back(one, Setback.DEFERRED, "I/O error", now)
    queue.add([batch(2, number=2)], 550.0)
    rejected = [each for one in queue.take(620.0) for each in queue.set_back(one, Setback.DEFERRED, "I/O error", 620.0)]
    assert ids_of(rejected) == [[1]]
    assert queue.attempts() == [2]


def test_other_requests_do_not_wait_for_one_that_fails():
    queue = queue_of(batch(1, cores=1), batch(2, cores=2, number=2))
    first, second = queue.take(0.0)
    queue.set_back(first, Setback.DEFERRED, "I/O error", 0.0)
    queue.accepted({second.key: 1}, 0.0)
    queue.round_over(0.0, is_away=False)
    queue.add([batch(3, cores=3, number=3)], 0.1)
    assert ids_of(queue.take(0.2)) == [[3]]


def test_where_one_request_after_the_other_fails_all_wait():
    queue = queue_of(*(batch(one, cores=one, number=one) for one in range(1, FAILED_KEYS_MAX + 1)))
    for one in queue.take(0.0):
        queue.set_back(one, Setback.DEFERRED, "I/O error", 0.0)
    queue.round_over(0.0, is_away=False)
    queue.add([batch(99, cores=99, number=99)], 0.1)
    assert queue.take(0.2) == []
    assert [99] in ids_of(queue.take(queue.due()))


def test_while_there_is_no_answer_nothing_is_tried_and_nothing_ever_rejected():
    queue = queue_of(batch(1, cores=1), batch(2, cores=2, number=2))
    now = 0.0
    for _ in range(50):
        first, *others = queue.take(now)
        queue.put_back([first, *others])
        queue.no_answer("away", now)
        queue.round_over(now, is_away=True)
        assert queue.take(now) == []
        now = queue.due()
    assert now > 2_000
    held_up = queue.hold_up()
    assert (held_up.text, held_up.waiting, held_up.next_at) == ("away", 2, now)
    queue.accepted({queue.take(now)[0].key: 1}, now)
    assert queue.hold_up() is None


def test_why_attempts_wait_is_told_with_the_next_try():
    queue = queue_of(batch(1, 2, cores=1), batch(3, cores=2, number=2), batch(4, cores=3, number=3))
    full, failed, good = queue.take(10.0)
    queue.set_back(full, Setback.FULL, "no room", 10.0)
    queue.set_back(failed, Setback.DEFERRED, "I/O error", 10.0)
    queue.accepted({good.key: 1}, 10.0)
    told = queue.hold_up()
    assert told.text == "no room; I/O error"
    assert (told.waiting, told.since, told.tried_at, told.next_at) == (3, 10.0, 10.0, 11.0)


def test_what_is_not_wanted_any_more_is_dropped_but_never_a_part_of_a_pack():
    packed = batch(5, 6, number=5, array=5)
    from jobmon.core.wire import replace
    from jobmon.core.wire.launching import JobPlan

    packed = replace(packed, plan=JobPlan(mode="pilot", jobs=1))
    queue = queue_of(batch(1, 2, 3), packed)
    assert queue.drop([2, 5]) == [2]
    assert ids_of(queue.take(0.0)) == [[1, 3], [5, 6]]
    queue = queue_of(packed)
    assert queue.drop([5, 6]) == [5, 6]
    assert not queue


@pytest.mark.parametrize("seed", range(30))
def test_every_attempt_is_accepted_once_whatever_the_cluster_says(seed):
    """A cluster with a limit, in trouble now and then, whose jobs exit now and then."""
    dice = random.Random(seed)
    limit, running, now = dice.randint(1, 20), [], 0.0
    batches, number = [], itertools.count(1)
    for each in range(1, dice.randint(2, 8)):
        ids = [next(number) for _ in range(dice.randint(1, 40))]
        batches.append(batch(*ids, number=each, array=dice.randint(1, 3), cores=dice.randint(1, 2)))
    expected = sorted(one for each in batches for one in each.task_instance_ids)
    queue, accepted, tries = queue_of(*batches), [], 0
    while queue or running:
        tries += 1
        assert tries < 20_000, "it never comes to an end"
        counts, set_back, untried, is_away = {}, [], [], False
        for one in queue.take(now):
            tried, later = one.split(one.most) if one.most is not None else (one, None)
            untried += [later] if later is not None else []
            ids = tried.batch.task_instance_ids
            kind = dice.random()
            if is_away or kind < 0.05:
                is_away = True
                untried.append(tried)
            elif kind < 0.15:
                set_back.append((tried, Setback.DEFERRED, "trouble"))
            else:
                fits = ids[: max(0, limit - len(running))]
                running += fits
                accepted += fits
                counts[tried.key] = counts.get(tried.key, 0) + len(fits) if fits else counts.get(tried.key, 0)
                counts = {key: count for key, count in counts.items() if count}
                if rest := set(ids) - set(fits):
                    set_back.append((tried.rest(rest, as_array=dice.random() < 0.5), Setback.FULL, "full"))
        queue.put_back(untried)
        queue.accepted(counts, now)
        for setback in set_back:
            assert queue.set_back(*setback, now) == []
        if is_away:
            queue.no_answer("away", now)
        queue.round_over(now, is_away=is_away)
        if running and dice.random() < 0.5:
            exits = dice.randint(1, len(running))
            del running[:exits]
            queue.exited(exits)
        due = queue.due()
        now = max(now + dice.random(), min(due, now + 5.0) if due is not None else now)
    assert sorted(accepted) == expected
