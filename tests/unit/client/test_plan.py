"""Compare a definition with the recorded one, and describe the difference."""

from __future__ import annotations

import json
from itertools import count

import pytest

from jobmon.client import comparison, file_state, planning
from jobmon.client.api import Tool
from jobmon.client.plan import duration_text
from jobmon.client.recorded import Recorded, RecordedTask
from jobmon.core.exceptions import WorkflowAlreadyExists, WorkflowChanged
from jobmon.core.wire.changes import RecordedAttempt, RecordedTemplate, RecordedWorkflow

WORKFLOW = RecordedWorkflow(workflow_id=1, name="words")
COUNT, SUM = "wc -w {file}", "awk {{s+=$1}} {into}"
FAILED = RecordedAttempt(status="E", is_started=True, cause="exit code", exit_code=2)


def make(files=3, command=COUNT, total=SUM, into="out", region="1", op="", prefix="c", second=True):
    """Count words in files, then sum them up."""
    tool = Tool("words")
    counting = tool.get_task_template("count", command + "{op}", node_args=["file"], op_args=["op"])
    summing = tool.get_task_template("sum", total + " {region}", node_args=["into"], task_args=["region"])
    workflow = tool.create_workflow("2026-10", name="words")
    tasks = [counting.create_task(file=f"{prefix}{n}", op=op) for n in range(files)]
    workflow.add_tasks(tasks)
    if second:
        workflow.add_task(summing.create_task(into=into, region=region, upstream_tasks=tasks))
    return workflow


def recorded(workflow, status="D", statuses=None, attempt=None, seconds=2.0):
    """Return a workflow as if it were recorded and, by default, done."""
    numbers, sets, ids, tasks, upstreams = count(1), count(1), {}, [], {}
    for task in workflow.tasks.values():
        version, node_args = task.template_version, len(task.node_args)
        ids[task] = next(numbers)
        set_id = next(sets) if task.upstream_tasks else 0
        if set_id:
            upstreams[set_id] = tuple(ids[each] for each in task.upstream_tasks)
        template = RecordedTemplate(
            name=version.name,
            command_template=version.command_template,
            node_args=list(version.arguments.node_args),
            task_args=list(version.arguments.task_args),
        )
        now = (statuses or {}).get(task.name, status)
        tasks.append(
            RecordedTask(
                ids[task],
                task.name,
                now,
                task.command,
                template,
                task.values[:node_args],
                task.values[node_args:],
                set_id,
                seconds if now == "D" else None,
                None if now == "D" else attempt,
            )
        )
    return Recorded(WORKFLOW, tasks, upstreams)


def plan_of(wanted, known, on_change="rerun", *, allow_removal=False):
    compared = comparison.compare(list(wanted.tasks.values()), known)
    consent = planning.Consent(on_change, allow_removal)
    return planning._plan(compared, WORKFLOW, "words", consent, file_state.UNCHECKED)


def actions(plan):
    return {
        template: {action: sum(reasons.values()) for action, reasons in each.items()}
        for template, each in plan.counts.items()
    }


CASES = {
    "nothing": (make(), {"count": {"keep": 3}, "sum": {"keep": 1}}),
    "an op arg": (make(op=" "), {"count": {"keep": 3}, "sum": {"keep": 1}}),
    "text that no command shows": (make(command="wc -w {file:}"), {"count": {"keep": 3}, "sum": {"keep": 1}}),
    "a command": (make(command="wc {file}"), {"count": {"run": 3}, "sum": {"run": 1}}),
    "the last command": (make(total="awk 1 {into}"), {"count": {"keep": 3}, "sum": {"run": 1}}),
    "a task arg": (make(region="2"), {"count": {"keep": 3}, "sum": {"run": 1}}),
    "more files": (make(files=5), {"count": {"keep": 3, "run": 2}, "sum": {"run": 1}}),
    "fewer files": (make(files=2), {"count": {"keep": 2, "remove": 1}, "sum": {"run": 1}}),
    "other files": (make(prefix="d"), {"count": {"run": 3, "remove": 3}, "sum": {"run": 1}}),
    "a step less": (make(second=False), {"count": {"keep": 3}, "sum": {"remove": 1}}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_runs_after_a_change(case):
    wanted, expected = CASES[case]
    assert actions(plan_of(wanted, recorded(make()))) == expected


def test_line_ends_in_values_do_not_break_the_lines_of_the_error():
    wanted = make(files=4, prefix="c\n", region="2\n3")
    plan = plan_of(wanted, recorded(make(region="1\n2")), allow_removal=True)
    text = str(planning.changed(wanted, plan))
    assert "4 tasks added: file=c␊0, file=c␊1, file=c␊2, file=c␊3; 3 tasks removed: file=c0" in text
    assert "region: 1␊2 -> 2␊3" in text
    assert not [line for line in text.splitlines()[1:] if line[:1].isdigit()]


def test_a_new_workflow_runs_as_a_whole():
    workflow = make()
    compared = comparison.unrecorded(list(workflow.tasks.values()))
    plan = planning._plan(compared, None, "words", planning.Consent("rerun"), file_state.UNCHECKED)
    assert plan.workflow_id is None
    assert plan.needs == []
    assert str(plan).splitlines()[0] == "New workflow 'words': 4 of 4 tasks would run"
    assert {task.reasons[0][0] for task in plan.tasks} == {"new"}


def test_a_template_that_is_kept_stays_and_the_others_rerun():
    plan = plan_of(make(files=5, total="awk 1 {into}"), recorded(make()), {"sum": "keep", "*": "rerun"})
    assert actions(plan) == {"count": {"keep": 3, "run": 2}, "sum": {"keep": 1}}
    assert plan.tasks[-1].reasons == [("accepted", "")]


def test_rerun_only_leaves_what_is_downstream():
    plan = plan_of(make(command="wc {file}"), recorded(make()), "rerun-only")
    assert actions(plan) == {"count": {"run": 3}, "sum": {"keep": 1}}


def test_reasons_have_details():
    known = recorded(make(), statuses={"sum_into-out": "F"}, attempt=FAILED)
    plan = plan_of(make(files=5, total="awk 1 {into}", region="2"), known)
    assert plan.tasks[-1].reasons == [
        ("command changed", "- awk {s+=$1} out 1\n+ awk 1 out 2"),
        ("task args changed", "region: 1 -> 2"),
        ("upstreams changed", "+2"),
        ("failed", "exit code 2"),
    ]
    assert plan.tasks[-1].task_id == 4


def test_an_empty_task_arg_is_visible():
    plan = plan_of(make(region="2"), recorded(make(region="")))
    assert plan.tasks[-1].reasons == [("task args changed", "region: '' -> 2")]


def test_a_rerun_of_upstream_tasks_names_them():
    plan = plan_of(make(command="wc {file}"), recorded(make()))
    assert plan.tasks[-1].reasons == [("upstream reruns", "")]
    assert plan.tasks[-1].because == ["count_file-c0", "count_file-c1", "count_file-c2"]


def test_what_runs_now_may_finish_and_is_killed_when_it_is_changed():
    known = recorded(make(), statuses={"count_file-c0": "R"})
    assert actions(plan_of(make(), known))["count"] == {"adopt": 1, "keep": 2}
    assert actions(plan_of(make(command="wc {file}"), known))["count"] == {"kill": 1, "run": 2}


def test_a_plan_in_words():
    plan = plan_of(make(files=23, total="awk 1 {into}"), recorded(make()), "error")
    heading, *lines = str(plan).splitlines()
    assert heading.startswith("Workflow 1 'words', version 1 -> 2: 21 of 24 tasks would run, about ")
    assert heading.endswith('(needs on_change="rerun")')
    assert lines == [
        "  count  run 20  new                             keep 3",
        "  sum    run  1  command changed, upstreams +20  keep 0",
    ]


def test_a_plan_as_json():
    plan = plan_of(make(files=5), recorded(make()))
    found = json.loads(json.dumps(plan.to_dict()))
    assert found["counts"] == {
        "count": {"keep": {"up to date": 3}, "run": {"new": 2}},
        "sum": {"run": {"upstreams changed": 1}},
    }
    assert [task["action"] for task in found["tasks"]] == ["keep"] * 3 + ["run"] * 3
    assert found["estimate"]["high_s"] >= 4


def test_what_has_no_history_is_named_and_not_guessed():
    known = recorded(make(), statuses={"sum_into-out": "G"})
    plan = plan_of(make(files=5), known)
    assert str(plan).splitlines()[-1].endswith("sum (1 task)")


def test_the_error_says_what_differs_and_what_to_do():
    wanted = make(files=10, total="awk 1 {into}")
    error = planning.changed(wanted, plan_of(wanted, recorded(make()), "error"))
    assert isinstance(error, WorkflowChanged)
    assert isinstance(error, WorkflowAlreadyExists)
    assert error.plan.run_count == 8
    lines = str(error).splitlines()
    assert lines[6:] == [
        '  accept        workflow.run(resume=True, on_change="rerun")',
        """  keep results  on_change="keep", or per template: on_change={'sum': 'keep', '*': 'rerun'}""",
        "  look first    workflow.plan()",
    ]
    assert lines[:6] == [
        "Workflow 1 'words' (workflow_args '2026-10') is recorded with a different definition (version 1):",
        "  count  7 tasks added: file=c3, file=c4, file=c5, file=c6, file=c7, 2 more",
        "  sum    command changed (1 task), upstreams +7",
        "         - awk {s+=$1} out 1",
        "         + awk 1 out 1",
        'on_change="rerun" would run 8 tasks and keep 3 results. Nothing has been changed.',
    ]


def test_the_error_says_that_tasks_are_gone():
    wanted = make(files=1)
    text = str(planning.changed(wanted, plan_of(wanted, recorded(make()))))
    assert "2 of 4 recorded tasks are not in this definition (template 'count')" in text
    assert "If that is intended: allow_removal=True." in text
    assert "accept" not in text


@pytest.mark.parametrize(
    ("on_change", "message"),
    [
        ("redo", "on_change must be one of 'error', 'rerun', 'rerun-only', 'keep', or a dict"),
        ({"sum": "redo"}, "on_change must be one of"),
        (
            {"summ": "keep"},
            "names template 'summ', but the workflow has no tasks of that template; did you mean 'sum'?",
        ),
        (None, "on_change must be one of"),
    ],
)
def test_modes_that_do_not_exist(on_change, message):
    with pytest.raises(ValueError, match=message):
        plan_of(make(), recorded(make()), on_change)


def test_equal_sets_of_upstream_tasks_are_compared_by_key():
    """Sets with the same tasks are equal, regardless of their order and origin."""
    tool = Tool("words")
    template = tool.get_task_template("step", "echo {n}", node_args=["n"])

    def made(order):
        tasks = {n: template.create_task(n=n) for n in order}
        workflow = tool.create_workflow("sets", name="words")
        for n, task in tasks.items():
            task.add_upstreams(tasks[other] for other in order if other < n)
        workflow.add_tasks(tasks[n] for n in order)
        return workflow

    plan = plan_of(made([2, 0, 1]), recorded(made([0, 1, 2])))
    assert plan.run_count == 0


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0, 0.2, "1 s"), (3.2, 8.5, "3-9 s"), (100, 200, "2-4 min"), (7200, 7200, "2.0 h")]
)
def test_durations_in_words(low, high, text):
    assert duration_text(low, high) == text
