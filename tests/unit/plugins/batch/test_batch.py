"""The shared base of plug-ins for batch schedulers, with job IDs of several formats."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobmon.plugins.batch import Answer, IdFormat, Mark, Texts, by_job, ranges_text
from jobmon.plugins.batch.endings import Ending
from jobmon.plugins.batch.ids import JobIds
from jobmon.plugins.batch.view import Endings, ListedJob, View, steps_of_marks, view_of

FORMATS = [IdFormat(), IdFormat(before=".", first=1), IdFormat(before="[", after="]", first=1)]


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=50)
@given(steps=st.sets(st.integers(0, 5_000), min_size=1), base=st.integers(1, 10**9).map(str))
def test_ids_come_back_from_any_format(form, steps, base):
    found = form.parse(form.join(base, f"[{ranges_text(steps)}]"))
    assert sorted(found) == sorted(form.join(base, step) for step in steps)
    assert by_job(form, found) == {base: sorted(steps)}
    assert list(form.parse(str(found))) == list(found)
    assert all(form.split(one)[0] == base for one in found)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", ["", "x", "1x", "1_[", "1.[3-1]", "1[[3-1]]", "1_[0-9:0]"])
def test_what_is_no_id_is_none(form, text):
    assert form.parse(text) is None


@pytest.mark.parametrize("form", FORMATS)
def test_a_view_answers_for_steps_and_marks_find_them_again(form):
    mark = Mark("jm-a-1-2", 4, 3)
    ids = list(mark.ids("7", form).values())
    waits = JobIds("7", (range(form.first + 1, form.first + 3),), form)
    rows = [
        ListedJob(ids=JobIds("7", (range(form.first, form.first + 1),), form), name=f"x.{mark}", state="r"),
        ListedJob(ids=waits, name=f"x.{mark}", state="qw", is_pending=True),
        ListedJob(ids=JobIds("9"), name="foreign", state="r"),
    ]
    view = View(view_of(1.0, rows), form)
    assert [view.find(one).state for one in ids] == ["r", "qw", "qw"]
    assert not view.holds("9")
    assert steps_of_marks([(row.name, row.ids) for row in rows], {mark.token}, form) == {
        mark.token: mark.ids("7", form)
    }
    endings = Endings(10, form)
    endings.add({str(waits): Ending("CANCELLED")})
    assert [endings.find(one) is None for one in ids] == [True, False, False]


def test_the_last_line_counts_first_and_what_is_not_listed_may_pass():
    texts = Texts(system="S", full=("full",), rejected=("no such",), unreached=("refused",))
    assert texts.answer_of("connection refused\nno such queue") is Answer.REJECTED
    assert texts.answer_of("no such queue\nconnection refused") is Answer.UNREACHED
    assert texts.answer_of("the cluster is full\nExiting") is Answer.FULL
    assert texts.answer_of("disk quota exceeded") is Answer.UNKNOWN
