"""For any jobs, with any durations: what a transaction runs, in which order, and what it leaves for the next."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from jobmon.server.writer import TRANSACTION_SECONDS, USE_CASES_PER_TRANSACTION_MAX, Job, _execute


class Work:
    """Use cases that take a time and note that they run."""

    def __init__(self):
        self.seconds = 0.0
        self.ran = []

    def one(self, tx, name, seconds):
        self.ran.append(name)
        self.seconds += seconds

    def joint(self, tx, asked):
        for name, seconds in asked:
            self.one(tx, name, seconds)
        return [name for name, _ in asked]


KINDS = st.sampled_from(["other", "other", "follows", "urgent", "joint"])
SECONDS = st.floats(0.0, 2 * TRANSACTION_SECONDS)


def job_of(work, name, kind, seconds):
    is_joint = kind == "joint"
    return Job(
        work.joint if is_joint else work.one,
        [(name, seconds)] if is_joint else [name, seconds],
        asyncio.Future(loop=LOOP),
        is_joint=is_joint,
        is_urgent=kind in ("joint", "urgent"),
        follows=kind == "follows",
    )


LOOP = asyncio.new_event_loop()


@given(st.lists(st.lists(st.tuples(KINDS, SECONDS), max_size=12), min_size=1, max_size=6), st.booleans())
def test_every_job_runs_once_and_in_its_turn(arrivals, are_many):
    work, waiting, number = Work(), [], 0
    arrivals = [some * (USE_CASES_PER_TRANSACTION_MAX // 4 if are_many else 1) for some in arrivals]
    kinds, order = {}, []
    while waiting or arrivals:
        for at, (kind, seconds) in enumerate(arrivals.pop(0) if arrivals else []):
            kinds[number] = "other" if kind == "follows" and at == 0 else kind
            waiting.append(job_of(work, number, kinds[number], seconds))
            number += 1
        if not waiting:
            continue
        began, work.ran = work.seconds, []
        done = _execute(None, waiting, lambda began=began: work.seconds - began < TRANSACTION_SECONDS)
        left = [job for job in waiting if not job.is_begun]
        assert set(done) | set(left) == set(waiting)
        assert not set(done) & set(left)
        assert sorted(work.ran) == sorted(_name(job) for job in done), "each ran once"
        others = [name for name in work.ran if kinds[name] in ("other", "follows")]
        assert work.ran[len(work.ran) - len(others) :] == others, "urgent ones come first"
        assert others or all(job.is_urgent for job in waiting), "the others progress"
        assert not next((job.follows for job in left if not job.is_urgent), False), "what belongs together is not split"
        assert len([name for name in work.ran if kinds[name] != "follows"]) <= USE_CASES_PER_TRANSACTION_MAX
        order += others
        waiting = left
    assert order == sorted(order), "others run in the order of their arrival"


def _name(job):
    return job.arguments[0][0] if job.is_joint else job.arguments[0]
