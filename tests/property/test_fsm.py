"""Properties of the four tables and of how they move each other (style.md 4.2, properties 1 to 3)."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core import fsm, retry
from jobmon.core.constants import (
    Actor,
    Cause,
    TaskInstanceStatus,
    TaskStatus,
    WorkflowRunStatus,
    WorkflowStatus,
)
from jobmon.core.fsm import Machine, Verdict

MACHINES = pytest.mark.parametrize("machine", list(Machine))
PAIRS = [(machine, source, target) for machine in Machine for source, target in product(fsm.STATES[machine], repeat=2)]
pairs = st.sampled_from(PAIRS)
#: The races are private to fsm, because no other module may use them. Only these tests read them.
LATE = fsm._LATE


def reached_from(machine: Machine, start: str) -> set[str]:
    """Every state that a path of edges leads to, `start` included."""
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        new = {target for source, target in fsm.table(machine) if source == here} - found
        found |= new
        todo.extend(new)
    return found


# --- property 1: the tables -------------------------------------------------------------------------------------------


@MACHINES
def test_every_state_is_reachable_from_the_start(machine):
    assert reached_from(machine, fsm.INITIAL[machine]) == set(fsm.STATES[machine])


@MACHINES
def test_every_state_that_is_not_terminal_leads_to_a_terminal_one(machine):
    stuck = {state for state in fsm.STATES[machine] if not reached_from(machine, state) & fsm.TERMINAL[machine]}
    assert stuck == set()


@MACHINES
def test_only_a_named_reopening_leaves_a_terminal_state(machine):
    edges = fsm.EDGES[machine]
    assert {edge for edge in edges if edge.reopens} == {edge for edge in edges if edge.source in fsm.TERMINAL[machine]}


@MACHINES
def test_only_client_server_reaper_and_user_reopen(machine):
    asked = {actor for edge in fsm.EDGES[machine] if edge.reopens for actor in edge.actors}
    assert asked <= {Actor.CLIENT, Actor.SERVER, Actor.REAPER, Actor.USER}


@MACHINES
def test_no_attempt_and_no_run_is_ever_reopened(machine):
    if machine in {Machine.TASK_INSTANCE, Machine.WORKFLOW_RUN}:
        assert not any(edge.reopens for edge in fsm.EDGES[machine])


@MACHINES
def test_every_edge_has_two_different_states_an_actor_and_a_reason(machine):
    for edge in fsm.EDGES[machine]:
        assert edge.source != edge.target
        assert edge.actors
        assert edge.why


@MACHINES
def test_no_edge_stands_twice_for_the_same_reason(machine):
    counts = Counter((edge.source, edge.target, edge.why) for edge in fsm.EDGES[machine])
    assert [key for key, count in counts.items() if count > 1] == []


@MACHINES
def test_no_pair_is_both_legal_and_late(machine):
    races = {(source, target) for source, targets in LATE[machine].items() for target in targets}
    legal = {pair for pair in races if (pair[0], fsm.effective_target(machine, *pair)) in fsm.table(machine)}
    assert legal == set()


@MACHINES
def test_races_name_states_of_their_machine_once(machine):
    letters = {state.value for state in fsm.STATES[machine]}
    for source, targets in LATE[machine].items():
        assert source in letters
        assert set(targets) <= letters
        assert source not in targets or source in fsm.TERMINAL[machine]


def test_a_redirect_starts_where_its_own_edge_is_missing_and_leads_along_an_edge():
    table = fsm.table(Machine.TASK_INSTANCE)
    for (source, asked), reached in fsm.REDIRECTS.items():
        assert (source, asked) not in table
        assert (source, reached) in table
        assert asked in fsm.TERMINAL[Machine.TASK_INSTANCE]


def test_every_failure_of_an_attempt_in_kill_self_ends_as_error():
    failures = fsm.TERMINAL[Machine.TASK_INSTANCE] - {TaskInstanceStatus.DONE}
    ends = {fsm.effective_target(Machine.TASK_INSTANCE, TaskInstanceStatus.KILL_SELF, end) for end in failures}
    assert ends == {TaskInstanceStatus.ERROR}


# --- property 2: judge is total and says what the tables say ----------------------------------------------------------


@given(pairs)
def test_judge_is_total_and_legal_exactly_where_an_edge_is(pair):
    machine, source, target = pair
    verdict = fsm.judge(machine, source, target)
    assert isinstance(verdict, Verdict)
    has_edge = (source, fsm.effective_target(machine, source, target)) in fsm.table(machine)
    assert (verdict is Verdict.LEGAL) == has_edge


@given(pairs)
def test_judge_takes_a_letter_for_its_state(pair):
    machine, source, target = pair
    assert fsm.judge(machine, source.value, target.value) is fsm.judge(machine, source, target)


@given(pairs)
def test_repeating_a_change_is_late(pair):
    machine, source, target = pair
    if fsm.judge(machine, source, target) is Verdict.LEGAL:
        reached = fsm.effective_target(machine, source, target)
        assert fsm.judge(machine, reached, reached) is Verdict.LATE
        # The same message again, after a redirect too.
        assert fsm.judge(machine, reached, target) is Verdict.LATE


@given(pairs)
def test_the_guard_of_a_bulk_update_holds_exactly_the_sources_in_the_table(pair):
    machine, source, target = pair
    assert (source in fsm.sources(machine, target)) == ((source, target) in fsm.table(machine))


@given(pairs, st.sampled_from(Actor))
def test_an_actor_may_ask_exactly_for_the_edges_that_name_it(pair, actor):
    machine, source, target = pair
    named = any((edge.source, edge.target) == (source, target) and actor in edge.actors for edge in fsm.EDGES[machine])
    assert fsm.may_ask(machine, source, target, actor) == named


@pytest.mark.parametrize("report", sorted(fsm.REPORTS))
@pytest.mark.parametrize("source", [state for state in TaskInstanceStatus if state is not TaskInstanceStatus.QUEUED])
def test_no_report_of_an_attempt_that_was_handed_out_is_illegal(source, report):
    """QUEUED is omitted: such an attempt is still with the server, so no report about it can exist."""
    assert fsm.judge(Machine.TASK_INSTANCE, source, report) is not Verdict.ILLEGAL


@pytest.mark.parametrize("actor", [Actor.DISTRIBUTOR, Actor.WORKER])
@pytest.mark.parametrize("report", sorted(fsm.REPORTS))
def test_nobody_may_report_of_an_attempt_that_was_not_handed_out(report, actor):
    assert not fsm.may_ask(Machine.TASK_INSTANCE, TaskInstanceStatus.QUEUED, report, actor)


@pytest.mark.parametrize("report", sorted(fsm.REPORTS))
def test_whatever_may_be_reported_is_the_distributors_or_workers_to_ask(report):
    actors = {actor for edge in fsm.EDGES[Machine.TASK_INSTANCE] if edge.target == report for actor in edge.actors}
    assert actors & {Actor.DISTRIBUTOR, Actor.WORKER}


@pytest.mark.parametrize("actor", [Actor.DISTRIBUTOR, Actor.WORKER])
@pytest.mark.parametrize("source", list(TaskInstanceStatus))
def test_whoever_runs_the_command_may_say_how_it_goes(source, actor):
    """Distributor and worker alike; that an attempt was submitted or refused is the distributor's alone to say."""
    for report in fsm.REPORTS - {TaskInstanceStatus.LAUNCHED, TaskInstanceStatus.NO_DISTRIBUTOR_ID}:
        if source is not TaskInstanceStatus.QUEUED and verdict_is_legal(source, report):
            reached = fsm.effective_target(Machine.TASK_INSTANCE, source, report)
            assert fsm.may_ask(Machine.TASK_INSTANCE, source, reached, actor)


def verdict_is_legal(source: str, target: str) -> bool:
    return fsm.judge(Machine.TASK_INSTANCE, source, target) is Verdict.LEGAL


# --- property 3: coupling ---------------------------------------------------------------------------------------------

#: Which edge to take at each step, modulo the number of edges there.
walks = st.lists(st.integers(min_value=0, max_value=2**16), min_size=1, max_size=12)


def step(machine: Machine, here: str, choice: int) -> fsm.Edge | None:
    """Return one edge from here, or None in a final state."""
    edges = [edge for (source, _), edge in sorted(fsm.table(machine).items()) if source == here and not edge.reopens]
    return edges[choice % len(edges)] if edges else None


@given(walks)
def test_a_task_follows_its_attempt_along_legal_edges(walk):
    """For any legal sequence, the task's state is that of the attempt's last coupled state; each step is an edge."""
    attempt = TaskInstanceStatus.QUEUED
    task = fsm.TASK_OF_INSTANCE[attempt]
    for choice in walk:
        edge = step(Machine.TASK_INSTANCE, attempt, choice)
        if edge is None:
            break
        attempt = edge.target
        follows = fsm.TASK_OF_INSTANCE.get(attempt, task)
        if follows != task:
            assert fsm.judge(Machine.TASK, task, follows) is Verdict.LEGAL
            assert edge.actors <= fsm.table(Machine.TASK)[task, follows].actors
        task = follows


def test_an_attempt_that_ended_leaves_its_task_done_failed_or_about_to_be_decided():
    ended = {fsm.TASK_OF_INSTANCE[end] for end in fsm.TERMINAL[Machine.TASK_INSTANCE]}
    assert ended == {TaskStatus.DONE, TaskStatus.ERROR_FATAL, TaskStatus.ERROR_RECOVERABLE}


def test_only_triage_and_kill_leave_a_task_where_it_is():
    uncoupled = set(TaskInstanceStatus) - set(fsm.TASK_OF_INSTANCE)
    assert uncoupled == {TaskInstanceStatus.TRIAGING, TaskInstanceStatus.KILL_SELF}


@given(st.sampled_from([status for status in WorkflowStatus if status is not WorkflowStatus.DONE]), walks)
def test_a_workflow_follows_its_newest_run_and_never_by_an_illegal_step(before, walk):
    """Whatever the workflow was when the run began, each change of the run is an edge for it or a known race.

    DONE is left out: a workflow that is done gets no new run.
    """
    run, workflow = WorkflowRunStatus.REGISTERED, before
    for choice in walk:
        edge = step(Machine.WORKFLOW_RUN, run, choice)
        if edge is None:
            break
        run = edge.target
        follows = fsm.WORKFLOW_OF_RUN.get(run, workflow)
        verdict = fsm.judge(Machine.WORKFLOW, workflow, follows)
        assert verdict is not Verdict.ILLEGAL
        if verdict is Verdict.LEGAL:
            assert edge.actors <= fsm.table(Machine.WORKFLOW)[workflow, follows].actors
            workflow = follows


def test_a_first_run_leaves_its_workflow_in_the_state_that_the_coupling_says():
    """Without a run before it, nothing is late: every joint state is the one in the table."""
    seen = set()
    todo = [(WorkflowRunStatus.REGISTERED, WorkflowStatus.REGISTERING)]
    while todo:
        run, workflow = todo.pop()
        if (run, workflow) in seen:
            continue
        seen.add((run, workflow))
        assert workflow == fsm.WORKFLOW_OF_RUN.get(run, workflow)
        for source, target in fsm.table(Machine.WORKFLOW_RUN):
            if source == run:
                reached = WorkflowRunStatus(target)
                follows = fsm.WORKFLOW_OF_RUN.get(reached, workflow)
                assert follows == workflow or fsm.judge(Machine.WORKFLOW, workflow, follows) is Verdict.LEGAL
                todo.append((reached, follows))


@pytest.mark.parametrize("run", [run for run in WorkflowRunStatus if run not in fsm.TERMINAL[Machine.WORKFLOW_RUN]])
def test_the_reaper_may_end_every_run_that_has_not_ended(run):
    end = fsm.RUN_WHEN_LOST[run]
    assert end in fsm.TERMINAL[Machine.WORKFLOW_RUN]
    assert fsm.may_ask(Machine.WORKFLOW_RUN, run, end, Actor.REAPER)


# --- attempts ---------------------------------------------------------------------------------------------------------

failures = st.tuples(
    st.sampled_from(sorted(fsm.TERMINAL[Machine.TASK_INSTANCE] - {TaskInstanceStatus.DONE})),
    st.one_of(st.none(), st.sampled_from(Cause)),
)


@given(st.integers(min_value=1, max_value=5), st.lists(failures, max_size=80))
def test_charged_attempts_never_exceed_the_maximum(max_attempts, history):
    """A task is tried until retry says that it has failed; by then it was charged at most max_attempts times."""
    charged_attempts = uncharged_in_a_row = 0
    outcome = TaskStatus.REGISTERING
    for status, cause in history:
        if outcome is TaskStatus.ERROR_FATAL:
            break
        charged = retry.is_charged(cause, uncharged_in_a_row)
        charged_attempts += charged
        uncharged_in_a_row = 0 if charged else uncharged_in_a_row + 1
        outcome = retry.after_failure(status, charged_attempts, max_attempts, charged=charged)
        assert charged_attempts <= max_attempts
        assert uncharged_in_a_row <= retry.UNCHARGED_IN_A_ROW_MAX
        assert (charged_attempts == max_attempts) <= (not charged or outcome is TaskStatus.ERROR_FATAL)


@given(failures, st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_where_retry_sends_a_task_is_an_edge_from_error_recoverable(failure, charged_attempts, max_attempts, charged):
    outcome = retry.after_failure(failure[0], charged_attempts, max_attempts, charged=charged)
    assert fsm.may_ask(Machine.TASK, TaskStatus.ERROR_RECOVERABLE, outcome, Actor.SERVER)


@given(st.one_of(st.none(), st.sampled_from(Cause)))
def test_a_task_that_nobody_is_to_blame_for_ends_all_the_same(cause):
    """The number of attempts is bounded, whatever their cause."""
    attempts = charged_attempts = in_a_row = 0
    outcome = TaskStatus.REGISTERING
    while outcome is not TaskStatus.ERROR_FATAL:
        attempts += 1
        charged = retry.is_charged(cause, in_a_row)
        charged_attempts += charged
        in_a_row = 0 if charged else in_a_row + 1
        outcome = retry.after_failure(TaskInstanceStatus.UNKNOWN_ERROR, charged_attempts, 3, charged=charged)
        assert attempts <= 3 * (retry.UNCHARGED_IN_A_ROW_MAX + 1)
