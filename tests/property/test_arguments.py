"""Arguments and identity, for any texts."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from jobmon.client.api import Task, Tool
from jobmon.client.arguments import declared, placeholders

NAMES = st.lists(st.from_regex(r"arg_[a-z]{1,5}", fullmatch=True), min_size=1, max_size=6, unique=True)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TEMPLATE = Tool("t").get_task_template("tmpl", "{n1} {n2} {t} {o}", ["n1", "n2"], ["t"], ["o"])


@given(NAMES, st.data())
def test_every_way_to_share_out_arguments_is_accepted_and_no_other(names, data):
    template = " ".join(f"{{{name}}}" for name in names)
    kinds = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(names), max_size=len(names)))
    groups = [[name for name, kind in zip(names, kinds, strict=True) if kind == wanted] for wanted in range(3)]
    assert placeholders(template) == set(names)
    assert declared("t", template, *groups).names == set(names)
    dropped = data.draw(st.sampled_from(names))
    try:
        declared("t", template, *([name for name in group if name != dropped] for group in groups))
    except ValueError as error:
        assert repr(dropped) in str(error)  # noqa: PT017 - the text is what is tested
    else:
        raise AssertionError("a missing argument went unnoticed")


@given(VALUES, VALUES, VALUES, VALUES, VALUES, VALUES)
def test_identity_is_equal_exactly_when_the_arguments_are(a, b, c, x, y, z):
    one, other = TEMPLATE.create_task(n1=a, n2=b, t=c, o=0), TEMPLATE.create_task(n1=x, n2=y, t=z, o=1)
    assert (one.node_digest == other.node_digest) == ((a, b) == (x, y))
    assert (one.task_digest == other.task_digest) == ((a, b, c) == (x, y, z))


@given(VALUES, VALUES)
def test_texts_that_only_join_alike_stay_apart(a, b):
    assume(b)
    one, other = TEMPLATE.create_task(n1=a + b, n2="", t=0, o=0), TEMPLATE.create_task(n1=a, n2=b, t=0, o=0)
    assert one.node_digest != other.node_digest


@given(VALUES, VALUES)
def test_default_names_are_valid(a, b):
    assert Task.is_valid_job_name(TEMPLATE.create_task(n1=a * 30, n2=b, t=0, o=0).name)


@given(VALUES)
def test_commands_hold_the_values(value):
    assert TEMPLATE.create_task(n1=value, n2="-", t="{x}", o="}").command == f"{value} - {{x}} }}"
