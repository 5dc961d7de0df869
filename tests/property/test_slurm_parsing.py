"""Whatever Slurm's tools print, parsing returns values or a clear error, never a traceback."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobmon.core.exceptions import ClusterUnavailable
from jobmon.plugins.batch import Mark, job_name, mark_of, ranges_text
from jobmon.plugins.batch.endings import remote_exit
from jobmon.plugins.batch.view import View, view_of
from jobmon.plugins.slurm import discovery, parsing
from jobmon.plugins.slurm.commands import ACCOUNTING_FIELDS, QUEUE_FIELDS, SEPARATOR
from jobmon.plugins.slurm.endings import verdict
from jobmon.plugins.slurm.view import accounted, listed, never_starts, pending_reason

RECORDED = Path(__file__).parents[1] / "unit" / "plugins" / "slurm" / "recorded"
READERS = {
    "squeue": parsing.queue_rows,
    "sacct": parsing.accounting_rows,
    "partitions": parsing.partitions,
    "config": parsing.configuration,
    "sinfo": parsing.node_kinds,
}
TEXTS = {name: (RECORDED / f"{name}.txt").read_text() for name in READERS}
#: What a broken answer is made of: pieces of real ones, and anything.
PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["\n", SEPARATOR, "|", "12_[0-3%2]", "CANCELLED by 0", "N/A", "0:125", "9" * 5000, "٣", "1-0:0:0"]),
)


@st.composite
def damaged(draw, name):
    """A recorded answer that was cut, or into which something was written."""
    text = TEXTS[name]
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 200)))
    return text[:start] + "".join(draw(st.lists(PIECES, max_size=4))) + text[draw(st.sampled_from([start, end])) :]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_answer_gives_values_or_is_refused(name, data):
    answer = data.draw(st.one_of(damaged(name), st.text(), st.lists(PIECES).map("".join)))
    try:
        READERS[name](answer)
    except ClusterUnavailable:
        return


@settings(max_examples=150)
@given(answer=st.lists(PIECES).map("".join))
def test_an_answer_to_sbatch_is_an_id_or_refused(answer):
    try:
        assert parsing.submitted_id(answer).isdecimal()
    except ClusterUnavailable:
        return


def rows(fields, header, identities):
    """Answers of the right form with any values in them."""
    values = st.tuples(identities, *(st.one_of(PIECES, st.just("FAILED"), st.just("0")) for _ in fields[1:]))
    lines = st.lists(values.map(SEPARATOR.join), max_size=5)
    first = SEPARATOR.join([header, *fields[1:]])
    return lines.map(lambda found: "\n".join([first, *found]))


IDENTITIES = st.sampled_from(["1", "2_3", "2_[4-9%2]", "2_3.batch", "1.extern", "x"])


@settings(max_examples=150)
@given(queue=rows(QUEUE_FIELDS, "JOBID", IDENTITIES), accounting=rows(ACCOUNTING_FIELDS, "JobID", IDENTITIES))
def test_every_row_that_is_understood_can_be_answered_from(queue, accounting):
    try:
        seen = parsing.queue_rows(queue), parsing.accounting_rows(accounting)
    except ClusterUnavailable:
        return
    view = View(view_of(1.0, listed(seen[0]), accounted(seen[1])))
    for held in view.held:
        never_starts(held)
        pending_reason(held, "")
        assert all(view.holds(identity) for identity in held.ids)
    for ending in view.ended.values():
        remote_exit("Slurm", ending, verdict(ending, str))


@settings(max_examples=150)
@given(output=st.dictionaries(st.sampled_from(sorted(parsing.pairs(TEXTS["partitions"]))), st.text(max_size=20)))
def test_a_partition_of_any_values_has_parameters_or_is_refused(output):
    line = " ".join(f"{key}={value}" for key, value in output.items())
    try:
        found = parsing.partitions(line)
    except ClusterUnavailable:
        return
    for _, parameters in discovery.queues_of(found, [], {}):
        assert all(value is not None for value in parameters.values())


@settings(max_examples=150)
@given(
    name=st.text(),
    token=st.from_regex(r"jm-[a-z0-9]{1,16}-[0-9]{1,9}-[0-9]{1,9}", fullmatch=True),
    first=st.integers(0, 10**6),
    length=st.integers(1, 10**6),
)
def test_a_mark_comes_back_from_any_name(name, token, first, length):
    mark = Mark(token, first, length)
    assert mark_of(job_name(name, mark)) == mark
    assert mark_of(str(mark)) == mark


@settings(max_examples=150)
@given(steps=st.sets(st.integers(0, 5_000), min_size=1))
def test_steps_written_as_ranges_are_the_same_steps(steps):
    found = parsing.job_ids(f"7_[{ranges_text(steps)}]")
    assert {int(identity.partition("_")[2]) for identity in found} == steps
