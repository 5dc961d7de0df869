"""Recorded expressions are evaluated to what they would have been at once, and described without being evaluated."""

import subprocess
import sys

import pytest
from sqlalchemy import and_, case, func, select, update

from jobmon.server import constructs, models
from jobmon.server.models import tables
from jobmon.server.recording import Recorded, describe, digest, real


def written(construct):
    return str(construct.compile(compile_kwargs={"literal_binds": True}))


def statements(source, of):
    """Return statements of many forms, made with SQLAlchemy's or with recorded names."""
    t, ti = of.task.c, of.task_instance.c
    newest = of.workflow_run.alias("newest")
    other = of.workflow_run.alias("other")
    return [
        source.select(t.id, (t.priority + 1).label("next"), 2 * t.priority, -t.priority).where(t.status == "D"),
        source.select(t.id).where(source.and_(t.id > 3, ~t.held, t.status.in_(("R", "D", "G")))),
        source.select(source.func.max(newest.c.id)).where(newest.c.id < other.c.id, other.c.id != 4),
        source.select(source.case((t.id == 1, "one"), else_="other")).order_by(t.id.desc()),
        source.update(of.task).values({"revision": t.revision + 1, t.priority: 7}).where(t["id"] == 5),
        source.select(t.id).join_from(of.task, of.task_instance, ti.task_id == t.id).where((t.id == 1) | (ti.id == 2)),
    ]


class Direct:
    and_, case, func, select, update = and_, case, func, select, update


def test_what_is_recorded_is_evaluated_to_the_same_statement():
    recorded = statements(constructs, models)
    for one, direct in zip(recorded, statements(Direct, tables), strict=True):
        assert isinstance(one, Recorded)
        assert sorted(written(real(one)).split()) == sorted(written(direct).split())
        assert real(one) is real(one), "evaluated once"


def test_equal_records_have_one_digest_and_others_have_none_in_common():
    first, second = statements(constructs, models), statements(constructs, models)
    digests = [digest(one) for one in first]
    assert digests == [digest(one) for one in second]
    assert None not in digests
    assert len(set(digests)) == len(first)


def test_one_alias_used_twice_differs_from_two_aliases():
    def joined(left, right):
        return describe(constructs.select(left.c.id).where(left.c.id == right.c.id))

    one = models.task.alias()
    assert joined(one, one) != joined(one, models.task.alias())


def test_values_of_different_kinds_are_told_apart():
    values = [1, True, "1", 1.0, None, b"1", ("1",), {"1": 1}, frozenset({"1", "2"})]
    assert len({describe(constructs.func.f(value)) for value in values}) == len(values)
    assert describe(constructs.func.f(object())) is None


def test_a_record_has_no_value_before_it_is_evaluated():
    with pytest.raises(TypeError):
        bool(models.task.c.id > 1)
    with pytest.raises(TypeError):
        f"{models.task.c.id}"
    assert models.task.c.id is models.task.c.id


def test_the_server_is_imported_without_sqlalchemy():
    code = "import sys, jobmon.server.process; print([name for name in sys.modules if name.startswith('sqlalchemy')])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
