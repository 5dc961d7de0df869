"""Expansions: functions that add tasks while their workflow runs, and what resumes make of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from itertools import count

import pytest

from jobmon.client.api import Expansion, Tool
from jobmon.client.resuming import ResumeOptions, resume_workflow
from jobmon.client.tracebacks import is_deliberate
from jobmon.core.exceptions import DuplicateNodeArgsError, InvalidResources, WorkflowChanged, WorkflowNotResumable
from jobmon.core.requester import Requester
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse

_numbers = count()


@pytest.fixture
def args():
    return f"expansions {next(_numbers)}"


@pytest.fixture
def folder(data_directory, tmp_path):
    return tmp_path


class Script:
    """A script that is run again and again: each command and each call leaves a line in `ran`."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.tool = Tool("expansions")
        self.step = self.template("step")
        self.part = self.template("part")
        self.workflow = self.tool.create_workflow(args, name="growing", default_max_attempts=1)

    def template(self, name, command=""):
        command = command or "true"
        return self.tool.get_task_template(name, f"echo {name}-{{x}} >> {self.folder}/ran; {command}", node_args=["x"])

    def note(self, text):
        with (self.folder / "ran").open("a") as file:
            file.write(f"{text}\n")

    def add(self, template, x, upstream_tasks=()):
        return self.workflow.add_task(template.create_task(x=x, upstream_tasks=upstream_tasks))

    def splitting(self, count, name="split", **options):
        """Add an expansion that adds this many parts."""

        def split(context):
            self.note("split")
            return [self.part.create_task(x=number) for number in range(count)]

        return self.workflow.expand(split, name=name, **options)

    def ran(self):
        path = self.folder / "ran"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture
def script(args, folder):
    return Script(args, folder)


@pytest.fixture
def again(args, folder):
    """Return the script of the next process."""
    return lambda: Script(args, folder)


def statuses(script):
    """Return the letters of the statuses of all tasks, removed ones included, by name."""
    from jobmon.client import recorded

    found = recorded.find_by_id(script.workflow.requester, script.workflow.workflow_id)
    return {task.name: task.status for task in recorded.fetch(script.workflow.requester, found).tasks}


def errors(script):
    from jobmon.core.wire.expanding import ExpansionsPage

    route = f"/workflows/{script.workflow.workflow_id}/expansions"
    page = Requester.from_defaults().call(route, {"after": 0}, ExpansionsPage, "get")
    return {page.names[at]: text for at, text in page.errors.items()}


# -- in one run --------------------------------------------------------------------------------------------------------


def test_what_depends_on_an_expansion_waits_for_everything_that_it_adds(script):
    first = script.add(script.step, "first")
    split = script.splitting(3, after=[first])
    script.add(script.step, "last", [split])
    assert script.workflow.run() == "D"
    assert script.workflow.last_result.total_tasks == 6
    ran = script.ran()
    assert ran[:2] == ["step-first", "split"]
    assert sorted(ran[2:5]) == ["part-0", "part-1", "part-2"]
    assert ran[5:] == ["step-last"]


def test_a_workflow_may_begin_with_an_expansion(script):
    split = script.splitting(2)
    script.add(script.step, "last", [split])
    assert script.workflow.run() == "D"
    assert script.ran()[-1] == "step-last"


def test_an_expansion_may_add_nothing(script):
    def nothing(context):
        script.note("nothing")

    script.add(script.step, "last", [script.workflow.expand(nothing)])
    assert script.workflow.run() == "D"
    assert script.ran() == ["nothing", "step-last"]


def test_added_tasks_depend_on_each_other_and_on_tasks_of_the_workflow(script):
    other = script.add(script.step, "other")

    def split(context):
        one = script.part.create_task(x=1)
        two = script.part.create_task(x=2, upstream_tasks=[one, other])
        return [two, one]

    script.add(script.step, "last", [script.workflow.expand(split)])
    assert script.workflow.run() == "D"
    ran = script.ran()
    assert ran.index("part-1") < ran.index("part-2") < ran.index("step-last")
    assert ran.index("step-other") < ran.index("part-2")


def test_what_waits_for_an_outer_expansion_waits_for_what_inner_ones_add(script):
    def inner(context):
        return [script.part.create_task(x="inner")]

    def outer(context):
        one = script.part.create_task(x="outer")
        return [one, context.expand(inner, after=[one])]

    script.add(script.step, "last", [script.workflow.expand(outer)])
    assert script.workflow.run() == "D"
    assert script.ran() == ["part-outer", "part-inner", "step-last"]


def test_an_added_task_waits_for_what_an_earlier_expansion_has_added(script):
    slow = script.tool.get_task_template("slow", f"sleep 1; echo slow >> {script.folder}/ran", node_args=[])
    split = script.workflow.expand(lambda context: [slow.create_task()], name="split")

    def further(context):
        return [script.part.create_task(x="further", upstream_tasks=[split])]

    first = script.add(script.step, "first")
    script.workflow.expand(further, after=[first])
    assert script.workflow.run() == "D"
    ran = script.ran()
    assert ran.index("slow") < ran.index("part-further")


def test_expansions_cannot_wait_for_what_the_other_one_adds(script):
    def one(context):
        return [script.part.create_task(x=1, upstream_tasks=[expansions[1]])]

    def two(context):
        return [script.part.create_task(x=2, upstream_tasks=[expansions[0]])]

    expansions = [script.workflow.expand(one), script.workflow.expand(two)]
    assert script.workflow.run() == "E"
    assert "The dependencies form a cycle" in errors(script)["two"]


def test_a_loop_ends_when_its_function_says_so(script):
    def advance(context):
        number = int(context.upstreams[0].node_args["x"]) + 1 if context.upstreams else 0
        task = script.part.create_task(x=number)
        following = [context.expand(advance, after=[task], name=f"advance_{number}")] if number < 4 else []
        return [task, *following]

    script.add(script.step, "last", [script.workflow.expand(advance)])
    assert script.workflow.run() == "D"
    assert script.ran() == [*(f"part-{number}" for number in range(5)), "step-last"]


def test_a_function_that_runs_its_own_workflow_is_told_to_return_tasks(script):
    def split(context):
        context.workflow.run()

    script.workflow.expand(split)
    assert script.workflow.run() == "E"
    assert "Return the tasks that the expansion is to add" in errors(script)["split"]


def test_a_loop_that_never_ends_is_stopped(script, monkeypatch):
    monkeypatch.setenv("JOBMON__RUN__EXPANSIONS_MAX", "3")

    def forever(context):
        return [context.expand(forever, name=f"forever_{next(numbers)}")]

    numbers = count()
    script.workflow.expand(forever)
    assert script.workflow.run() == "E"
    [text] = errors(script).values()
    assert "3 expansions have been called in this run, which is the maximum" in text


def test_a_branch_adds_one_task_or_the_other(script):
    first = script.workflow.add_task(script.tool.get_task_template("measure", "echo small", node_args=[]).create_task())

    def choose(context):
        [upstream] = context.upstreams
        return [script.part.create_task(x=upstream.output_tail.strip())]

    script.workflow.expand(choose, after=[first])
    assert script.workflow.run() == "D"
    assert script.ran() == ["part-small"]


def test_the_context_shows_upstream_tasks_with_their_results(script):
    template = script.tool.get_task_template(
        "write", "echo {x} | tee {x}.txt", node_args=["x"], outputs={"table": str(script.folder / "{x}.txt")}
    )
    writing = script.workflow.add_task(template.create_task(x="a"))
    seen = []

    def look(context):
        seen.extend(context.upstreams)
        assert context.workflow is script.workflow
        assert context.tool is script.tool

    before = os.getcwd()
    os.chdir(script.folder)
    try:
        split = script.splitting(1, after=[writing])
        script.workflow.expand(look, after=[split, writing])
        assert script.workflow.run() == "D"
    finally:
        os.chdir(before)
    one, part = sorted(seen, key=lambda each: each.task_id)
    assert (one.name, one.template, one.node_args, one.task_id) == ("write_x-a", "write", {"x": "a"}, writing.task_id)
    assert one.outputs == {"table": str(script.folder / "a.txt")}
    assert one.output_tail == "a\n"
    assert set(one.log_paths) == {"stdout", "stderr"}
    assert part.name == "part_x-0", "what an upstream expansion added is upstream, too"
    assert part.outputs == []


def test_skipped_tasks_satisfy_those_downstream_which_are_skipped_if_nothing_else_is_upstream(script):
    def choose(context):
        context.skip(left)
        return []

    chosen = script.workflow.expand(choose)
    left = script.add(script.step, "left", [chosen])
    after_left = script.add(script.step, "after-left", [left])
    right = script.add(script.step, "right", [chosen])
    script.add(script.step, "last", [after_left, right])
    assert script.workflow.run() == "D"
    assert script.ran() == ["step-right", "step-last"]
    assert script.workflow.last_result.skipped_task_ids == {left.task_id, after_left.task_id}


def test_skipping_without_what_is_downstream(script):
    def choose(context):
        context.skip([left], downstream=False)

    chosen = script.workflow.expand(choose)
    left = script.add(script.step, "left", [chosen])
    script.add(script.step, "after-left", [left])
    assert script.workflow.run() == "D"
    assert script.ran() == ["step-after-left"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def fails(script, function, **options):
    """Run a workflow with this function, which fails; return the recorded error."""
    expansion = script.workflow.expand(function, name="bad", **options)
    script.add(script.step, "last", [expansion])
    assert script.workflow.run() == "E"
    assert "step-last" not in script.ran()
    assert statuses(script)["bad"] == "F"
    assert set(statuses(script)) <= {"bad", "step_x-last", "step_x-other"}, "nothing is half added"
    return errors(script)["bad"]


def test_an_exception_is_recorded_with_its_traceback(script, caplog):
    def bad(context):
        raise LookupError("no such table")

    text = fails(script, bad)
    assert text.rstrip().endswith("LookupError: no such table")
    assert 'raise LookupError("no such table")' in text
    assert "Expansion 'bad' (task 1) failed: LookupError: no such table" in caplog.text.replace(
        f"task {script.workflow.get_tasks_by_node_args('expansion')[0].task_id}", "task 1"
    )


def test_a_failed_expansion_is_explained(script):
    from jobmon.core.wire.monitoring import TaskDetail, TaskExplanation

    fails(script, lambda context: 3)
    [expansion] = script.workflow.get_tasks_by_node_args("expansion")
    requester = Requester.from_defaults()
    explained = requester.call(f"/tasks/{expansion.task_id}/explanation", None, TaskExplanation, "get")
    assert "its function raised an exception, or what it returned cannot be added" in explained.reasons[0].text
    detail = requester.call(f"/tasks/{expansion.task_id}", None, TaskDetail, "get")
    assert detail.error.startswith("TypeError: An expansion returns an iterable of tasks")
    assert expansion.get_errors()["error_log"][0]["description"] == detail.error
    assert script.workflow.task_errors["bad"][0]["task_status"] == "F"


def test_a_held_expansion_is_called_when_it_is_released(script):
    first = script.add(script.step, "first")
    split = script.splitting(1, after=[first])
    script.workflow.bind()
    split.hold()
    released = threading.Event()

    def release():
        while statuses(script)["step_x-first"] != "D":
            released.wait(0.05)
        assert "split" not in script.ran()
        split.release()
        released.set()

    threading.Thread(target=release).start()
    assert script.workflow.run() == "D"
    assert released.is_set()
    assert script.ran() == ["split", "part-0"]


def test_a_rerun_calls_the_function_again(script, again):
    split = define(script).workflow.get_tasks_by_node_args("expansion")[0]
    assert script.workflow.run() == "D"
    script.ran()
    assert split.rerun() == 5, "the expansion, what it added and the sum"
    second = define(again())
    assert second.workflow.run(resume=True) == "D"
    ran = second.ran()
    assert ran[0] == "split"
    assert sorted(ran[1:4]) == ["part-0", "part-1", "part-2"]
    assert ran[4:] == ["sum-sum"]


def test_a_rerun_of_an_expansion_that_is_being_called_calls_it_again(script):
    def split(context):
        script.note("split")
        if calls == [1]:
            calls.append(2)
            expansion.rerun()
        return [script.part.create_task(x=number) for number in range(2)]

    calls = [1]
    expansion = script.workflow.expand(split)
    script.add(script.step, "last", [expansion])
    assert script.workflow.run(seconds_until_timeout=60) == "D"
    ran = script.ran()
    assert (ran[:2], sorted(ran[2:4]), ran[4:]) == (["split"] * 2, ["part-0", "part-1"], ["step-last"])


def test_a_function_is_called_again_as_often_as_it_may(script):
    calls = []

    def flaky(context):
        calls.append(1)
        if len(calls) < 3:
            raise OSError("busy")
        return [script.part.create_task(x=1)]

    script.workflow.expand(flaky, max_attempts=3)
    assert script.workflow.run() == "D"
    assert len(calls) == 3
    assert script.ran() == ["part-1"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (3, "An expansion returns an iterable of tasks, or None, not 3."),
        ("text", "An expansion returns an iterable of tasks, or None, not 'text'."),
        ([1], "An expansion returns an iterable of tasks, or None; one of these is 1."),
    ],
)
def test_a_function_that_returns_no_tasks_fails(script, returned, message):
    assert message in fails(script, lambda context: returned)


def test_a_single_task_is_no_list(script):
    text = fails(script, lambda context: script.part.create_task(x=1))
    assert "An expansion returns an iterable of tasks, or None, not <Task" in text
    assert text.rstrip().endswith("Return a list: [task].")


def test_the_same_task_twice_fails(script):
    text = fails(script, lambda context: [script.part.create_task(x=1), script.part.create_task(x=1)])
    assert "Two tasks of template 'part' have the same node args: x='1'." in text


def test_a_task_that_the_script_has_fails(script):
    script.add(script.step, "other")
    text = fails(script, lambda context: [script.step.create_task(x="other")])
    assert "Task 'step_x-other' of template 'step' is already in workflow" in text
    assert "the script defines it" in text
    assert "Traceback" not in text


def test_a_further_expansion_needs_its_own_name(script):
    text = fails(script, lambda context: [context.expand(lambda context: [], name="bad")])
    assert "Expansion 'bad' is already in workflow" in text
    assert "name=" in text


def test_what_jobmon_refuses_in_the_result_has_no_traceback(script):
    other = script.add(script.step, "other")
    text = fails(script, lambda context: context.skip([other]), after=[other])
    assert "Task 'step_x-other' is DONE; only tasks" in text
    assert "Traceback" not in text


def test_what_jobmon_refuses_in_the_function_is_shown_with_the_frames_of_the_function(script):
    text = fails(script, lambda context: script.workflow.add_task(script.part.create_task(x=1)))
    assert "An expansion returns the tasks to add." in text
    assert text.count("  File ") == 1
    assert __file__ in text


def test_the_message_of_a_failed_function_is_logged_as_one_short_line(script, caplog):
    def bad(context):
        raise ValueError("\x1b[31mred\nline" * 1_000)

    fails(script, bad)
    (line,) = [record.getMessage() for record in caplog.records if "failed: ValueError" in record.getMessage()]
    assert len(line) < 1_100
    assert line.isprintable()


def test_a_task_of_the_workflow_is_not_new(script):
    other = script.add(script.step, "other")
    assert "Task 'step_x-other' is already in a workflow" in fails(script, lambda context: [other])


def test_a_cycle_through_what_waits_for_the_expansion_fails(script):
    text = fails(script, lambda context: [script.part.create_task(x=1, upstream_tasks=[last()])])

    assert "The dependencies form a cycle: task 'part_x-1' depends on 'step_x-last'" in text


def last():
    """Return the task that waits for the expansion: it was added after the function was defined."""
    from jobmon.client.task import growing

    return growing.get().get_tasks_by_node_args("step", x="last")[0]


def test_a_task_cannot_wait_for_the_expansion_that_adds_it(script):
    def bad(context):
        [own] = script.workflow.get_tasks_by_node_args("expansion")
        return [script.part.create_task(x=1, upstream_tasks=[own])]

    assert "The dependencies form a cycle: task 'part_x-1' depends on 'bad'" in fails(script, bad)


def test_a_cycle_of_added_tasks_fails(script):
    def bad(context):
        one, two = (script.part.create_task(x=number) for number in (1, 2))
        one.add_upstream(two)
        two.add_upstream(one)
        return [one, two]

    assert "The dependencies form a cycle: part_x-" in fails(script, bad)


def test_an_upstream_task_that_is_not_returned_fails(script):
    def bad(context):
        one = script.part.create_task(x=1)
        return [script.part.create_task(x=2, upstream_tasks=[one])]

    assert "Task 'part_x-2' depends on 'part_x-1': neither in the workflow nor returned." in fails(script, bad)


def test_an_expansion_that_is_not_returned_fails(script):
    def bad(context):
        context.expand(bad, name="lost")

    assert "Expansion 'lost' was created but not returned" in fails(script, bad)


def test_a_done_task_cannot_be_skipped(script):
    other = script.add(script.step, "other")
    text = fails(script, lambda context: context.skip(other), after=[other])
    assert "Task 'step_x-other' is DONE; only tasks that are neither done nor queued nor running" in text


def test_an_unknown_cluster_fails(script):
    text = fails(script, lambda context: [script.part.create_task(x=1, cluster_name="nowhere")])
    assert "There is no cluster 'nowhere'" in text


def test_a_function_that_never_ends_delays_no_timeout(script):
    release = threading.Event()
    script.workflow.expand(lambda context: release.wait(), name="endless")
    try:
        with pytest.raises(RuntimeError, match=r"not done after 2 s") as caught:
            script.workflow.run(seconds_until_timeout=2)
        assert is_deliberate(caught.value, caught.tb), "a timeout is shown without a traceback"
        assert statuses(script) == {"endless": "G"}, "the next run calls it again"
    finally:
        release.set()


def test_what_a_function_returns_after_its_run_is_refused(script, again):
    release, called = threading.Event(), threading.Event()

    def late(context):
        release.wait()
        called.set()
        return [script.part.create_task(x="late")]

    script.workflow.expand(late)
    with pytest.raises(RuntimeError, match="not done after"):
        script.workflow.run(seconds_until_timeout=1)
    release.set()
    assert called.wait(20)
    second = again()
    second.workflow.expand(lambda context: [second.part.create_task(x="new")], name="late")
    assert second.workflow.run(resume=True) == "D"
    assert second.ran() == ["part-new"]
    assert {name for name, status in statuses(second).items() if status == "D"} == {"late", "part_x-new"}


def test_values_that_are_no_function_or_no_name(script):
    with pytest.raises(ValueError, match="needs a function of one argument, not 3"):
        script.workflow.expand(3)
    with pytest.raises(ValueError, match="has no name that could identify the expansion: pass name="):
        script.workflow.expand(lambda context: [])
    script.splitting(1)
    with pytest.raises(DuplicateNodeArgsError, match="expansion='split'"):
        script.splitting(2)
    with pytest.raises(ValueError, match="max_attempts"):
        script.splitting(2, name="other", max_attempts=0)
    with pytest.raises(ValueError, match="upstream_tasks must be a list of tasks"):
        script.splitting(2, name="other", after=3)
    assert isinstance(script.workflow.get_tasks_by_node_args("expansion")[0], Expansion)


# -- resumes -----------------------------------------------------------------------------------------------------------


def define(script, parts=3, version="", command="", first=""):
    one = script.add(script.template("step", first), "first")
    script.part = script.template("part", command)
    split = script.splitting(parts, after=[one], version=version)
    script.add(script.template("sum"), "sum", [split])
    return script


def test_an_expansion_that_is_up_to_date_is_not_called_again(script, again):
    script = define(script, command="test {x} != 1")
    assert script.workflow.run() == "E"
    assert sorted(script.ran()) == ["part-0", "part-1", "part-2", "split", "step-first"]
    second = define(again(), command="test {x} != 1")
    assert second.workflow.run(resume=True) == "E"
    assert second.ran() == ["part-1"]
    third = define(again(), command="test {x} != 1")
    third.workflow.requester.call(f"/workflows/{second.workflow.workflow_id}/recorded", None, dict, "get")
    assert "unchanged" not in str(third.workflow.plan())


def test_a_finished_workflow_has_an_empty_plan(script, again):
    assert define(script).workflow.run() == "D"
    plan = define(again()).workflow.plan()
    assert plan.run_count == 0
    assert plan.needs == []
    assert define(again()).workflow.run(resume=True, on_change="rerun") == "D"
    assert script.ran().count("split") == 1


def test_an_expansion_whose_upstream_tasks_rerun_is_called_again(script, again):
    assert define(script).workflow.run() == "D"
    script.ran()
    changed = define(again(), first="exit 0")
    plan = changed.workflow.plan()
    assert "split: tasks unknown (3 last time)" in str(plan)
    assert plan.run_count == 3, "the step, the expansion and the sum"
    assert changed.workflow.run(resume=True, on_change="rerun") == "D"
    ran = changed.ran()
    assert ran[:2] == ["step-first", "split"]
    assert sorted(ran[2:5]) == ["part-0", "part-1", "part-2"]
    assert ran[5:] == ["sum-sum"]
    assert define(again(), first="exit 0").workflow.plan().run_count == 0


def test_another_version_calls_the_function_again_and_adds_what_is_new(script, again):
    assert define(script).workflow.run() == "D"
    script.ran()
    with pytest.raises(WorkflowChanged, match="task args changed"):
        define(again(), parts=5, version="2").workflow.run(resume=True)
    changed = define(again(), parts=5, version="2")
    assert changed.workflow.run(resume=True, on_change="rerun") == "D"
    ran = changed.ran()
    assert ran[0] == "split"
    assert sorted(ran[1:6]) == [f"part-{number}" for number in range(5)]
    assert ran[6:] == ["sum-sum"]
    assert define(again(), parts=5, version="2").workflow.plan().run_count == 0


def test_tasks_that_are_no_longer_returned_are_removed_only_with_consent(script, again):
    assert define(script).workflow.run() == "D"
    script.ran()
    fewer = define(again(), parts=1, version="2")
    assert fewer.workflow.run(resume=True, on_change="rerun") == "E"
    assert "no longer returns 2 tasks that it added before: part_x-1, part_x-2." in errors(fewer)["split"]
    assert fewer.ran() == ["split"]
    allowed = define(again(), parts=1, version="2")
    assert allowed.workflow.run(resume=True, on_change="rerun", allow_removal=True) == "D"
    assert allowed.ran() == ["split", "part-0", "sum-sum"]
    assert statuses(allowed)["part_x-2"] == "X"
    assert define(again(), parts=1, version="2").workflow.plan().run_count == 0


def test_an_added_task_with_another_command_reruns(script, again):
    assert define(script).workflow.run() == "D"
    script.ran()
    changed = define(again(), version="2", command="exit 0")
    assert changed.workflow.run(resume=True, on_change="rerun") == "D"
    assert sorted(changed.ran()) == ["part-0", "part-1", "part-2", "split", "sum-sum"]


def test_an_expansion_that_is_gone_takes_along_what_it_added(script, again):
    assert define(script).workflow.run() == "D"
    script.ran()

    def without():
        other = again()
        other.add(other.template("step"), "first")
        other.add(other.template("sum"), "sum")
        return other

    with pytest.raises(WorkflowChanged, match="4 of 6 recorded tasks are not in this definition"):
        without().workflow.run(resume=True, on_change="rerun")
    other = without()
    assert other.workflow.run(resume=True, on_change="rerun", allow_removal=True) == "D"
    assert other.ran() == ["sum-sum"]
    assert {name for name, status in statuses(other).items() if status == "X"} == {
        *(f"part_x-{number}" for number in range(3)),
        "split",
    }


def test_a_failed_expansion_is_called_again_on_a_resume(script, again):
    def broken(context):
        raise ValueError("first")

    script.add(script.step, "last", [script.workflow.expand(broken, name="split")])
    assert script.workflow.run() == "E"
    second = again()
    second.add(second.step, "last", [second.splitting(2)])
    assert second.workflow.run(resume=True) == "D"
    assert second.ran()[-1] == "step-last"
    assert errors(second) == {}


def test_a_function_of_a_script_cannot_be_called_on_a_resume_by_id(script):
    def broken(context):
        raise ValueError("first")

    script.workflow.expand(broken)
    assert script.workflow.run() == "E"
    with pytest.raises(WorkflowNotResumable, match=r"Expansion 'broken' needs the function .*<locals>.broken"):
        resume_workflow(script.workflow.workflow_id, ResumeOptions(), script.workflow.requester)


def test_a_detached_run_needs_a_function_that_can_be_imported(script):
    script.splitting(1)
    with pytest.raises(InvalidResources, match=r"Expansion 'split' calls .*, which another process cannot import"):
        script.workflow.start()
    assert script.workflow.workflow_id is None


MODULE = """
    from jobmon.client.api import Tool

    def split(context):
        with open("{folder}/ran", "a") as file:
            file.write("split\\n")
        template = context.tool.get_task_template("made", "echo made-{{x}} >> {folder}/ran; {command}", node_args=["x"])
        one = [template.create_task(x=number) for number in range(2)]
        return [*one, context.expand(inner, after=one)]

    def inner(context):
        template = context.tool.get_task_template("made", "echo made-{{x}} >> {folder}/ran; {command}", node_args=["x"])
        return [template.create_task(x=len(context.upstreams))]

    def define(args):
        tool = Tool("imported")
        workflow = tool.create_workflow(args, default_max_attempts=1)
        expansion = workflow.expand(split)
        last = tool.get_task_template("last", "echo last >> {folder}/ran", node_args=[])
        workflow.add_task(last.create_task(upstream_tasks=[expansion]))
        return workflow
"""


@pytest.fixture
def module(folder, monkeypatch):
    """Write a module with expansions; return a function that changes its command."""
    name = f"growing_{next(_numbers)}"
    path = folder / "modules" / f"{name}.py"
    path.parent.mkdir()

    def write(command):
        path.write_text(textwrap.dedent(MODULE).format(folder=folder, command=command))
        sys.modules.pop(name, None)
        return __import__(name)

    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    sys.modules.pop(name, None)


def test_a_resume_by_id_calls_functions_of_the_python_path(args, folder, module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))
    workflow = module(f"test -e {folder}/ok").define(args)
    assert workflow.run() == "E"
    (folder / "ok").touch()
    (folder / "ran").unlink()
    result = resume_workflow(workflow.workflow_id, ResumeOptions(), workflow.requester)
    assert result.final_status == "D"
    ran = (folder / "ran").read_text().split()
    assert "split" not in ran
    assert ran[-2:] == ["made-2", "last"]


def test_a_resume_by_id_keeps_the_limit_of_the_template_that_an_expansion_uses(args, folder, module, monkeypatch):
    """A function that is called by ID knows neither what the script has set nor what a user has changed since."""
    monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))
    workflow = module(f"test -e {folder}/ok").define(args)
    assert workflow.run() == "E"
    (folder / "ok").touch()
    route = f"/workflows/{workflow.workflow_id}/arrays/made/concurrency"
    requester = workflow.requester
    requester.call(route, ConcurrencyRequest(max_concurrently_running=1), ConcurrencyResponse, "put")
    assert resume_workflow(workflow.workflow_id, ResumeOptions(), requester).final_status == "D"
    assert requester.call(route, None, ConcurrencyResponse, "get").max_concurrently_running == 1


def test_an_expansion_that_was_done_before_a_resume_by_id_reruns_during_it(args, folder, module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))
    waits = f"test -e {folder}/ok && while [ ! -e {folder}/go ]; do sleep 0.05; done"
    workflow = module(waits).define(args)
    assert workflow.run() == "E"
    (folder / "ok").touch()
    (folder / "ran").unlink()

    def rerun():
        while not (folder / "ran").exists():
            pause.wait(0.05)
        workflow.get_tasks_by_node_args("expansion")[0].rerun()
        (folder / "go").touch()

    pause = threading.Event()
    threading.Thread(target=rerun).start()
    result = resume_workflow(workflow.workflow_id, ResumeOptions(), workflow.requester)
    assert result.final_status == "D"
    ran = (folder / "ran").read_text().split()
    assert ran.count("split") == 1
    assert (sorted(ran[ran.index("split") :][1:-1]), ran[-1]) == (["made-0", "made-1", "made-2"], "last")


def test_a_module_of_the_working_folder_is_not_imported_on_a_resume_by_id(args, folder, module, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(folder / "modules")
    workflow = module("test -e ok").define(args)
    assert workflow.run() == "E"
    with pytest.raises(WorkflowNotResumable, match=r"module 'growing_\d+' is neither installed nor in PYTHONPATH"):
        resume_workflow(workflow.workflow_id, ResumeOptions(), workflow.requester)


def test_a_detached_run_calls_functions_of_the_python_path(args, folder, module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))
    workflow = module("true").define(args)
    assert workflow.start().wait(60) == "D"
    assert (folder / "ran").read_text().split()[-2:] == ["made-2", "last"]


# -- crashes -----------------------------------------------------------------------------------------------------------

CRASH = """
    import os, signal, sys
    from jobmon.client import changing
    from jobmon.client.api import Tool

    where = {where!r}

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    tool = Tool("crashes")
    part = tool.get_task_template("part", "echo part-{{x}} >> {folder}/ran", node_args=["x"])
    last = tool.get_task_template("last", "echo last >> {folder}/ran", node_args=[])
    sent = []

    def split(context):
        with open("{folder}/ran", "a") as file:
            file.write("split\\n")
        if where == "call":
            die()
        return [part.create_task(x=number) for number in range(3)]

    if where:
        from jobmon.core import requester
        original = requester.Requester.call

        def call(self, route, *arguments, **options):
            kind = route.rpartition("/")[2]
            if "/versions" in route and where == f"before {{kind}}":
                die()
            answer = original(self, route, *arguments, **options)
            if "/versions" in route and where == f"after {{kind}}":
                die()
            return answer

        requester.Requester.call = call

    workflow = tool.create_workflow({args!r}, default_max_attempts=1)
    expansion = workflow.expand(split)
    workflow.add_task(last.create_task(upstream_tasks=[expansion]))
    print(workflow.run(resume=True))
"""


@pytest.mark.parametrize(
    "where",
    [
        "call",
        *("before versions", "after versions", "before tasks", "after tasks", "after upstreams", "after statuses"),
        *("before seal", "after seal"),
    ],
)
def test_a_crash_of_the_client_loses_and_duplicates_nothing(args, folder, where):
    path = folder / "crash.py"

    def run(where):
        path.write_text(textwrap.dedent(CRASH).format(where=where, folder=folder, args=args))
        return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)

    crashed = run(where)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    found = run("")
    assert found.stdout.endswith("D\n"), found.stderr
    ran = (folder / "ran").read_text().split()
    assert ran.count("split") == (1 if where == "after seal" else 2)
    assert sorted(one for one in ran if one != "split") == ["last", "part-0", "part-1", "part-2"]
    assert ran[-1] == "last"
