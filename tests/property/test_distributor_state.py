"""The distributor's records under random events: each attempt is in one state, and its outcome is reported once."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobmon.core.cluster_protocol import RemoteExit
from jobmon.core.constants import TaskInstanceStatus, WorkflowRunStatus
from jobmon.core.wire.launching import JobPlan, LaunchBatch, SyncResponse
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.outbox import is_ending
from jobmon.distributor.state import DistributorState

TI = TaskInstanceStatus
ANY = st.integers(0, 1_000_000)


class Distributor(RuleBasedStateMachine):
    """Server and clusters answer in any order; `known` are the attempts whose outcome the server has."""

    def __init__(self):
        super().__init__()
        self.state = DistributorState(["far"], Surroundings(1, 2, "/logs"))
        self.handed: list[int] = []
        self.submitting: list[LaunchBatch] = []
        self.known: Counter[int] = Counter()
        self.by_jobs: set[int] = set()
        self.batches = 0

    def teardown(self):
        """Let everything end: nothing is left over, and the server has one outcome of each attempt."""
        self.state.drain()
        while self.submitting:
            self.lose(0)
        for job in list(self.state.classic("far")):
            self.classic(job, TI.ERROR)
        self.state.hear_packed(SyncResponse(workflow_run_status="R", over=self.state.packed.numbers))
        self.send(10_000, True)
        assert self.state.is_idle
        assert self.known == Counter(one for one in self.handed if one not in self.by_jobs)

    # -- the server --------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4), cluster=st.sampled_from(["far", "gone"]))
    def hand_out(self, count, cluster, plan=None):
        ids = list(range(len(self.handed) + 1, len(self.handed) + count + 1))
        self.handed += ids
        self.batches += 1
        given = LaunchBatch(
            batch_number=self.batches,
            array_id=1,
            array_name="array",
            cluster_name=cluster,
            queue_name="default",
            requested_resources={},
            task_instance_ids=ids,
            task_ids=ids,
            names=[f"t{one}" for one in ids],
            commands=["true" for _ in ids],
            attempts=[1 for _ in ids],
            plan=plan,
        )
        self.state.take([given])
        self.state.take([given])

    @rule(count=st.integers(1, 4))
    def hand_out_packed(self, count):
        self.hand_out(count, "far", JobPlan(mode="pack", jobs=1))

    @rule(which=ANY)
    def kill(self, which):
        if self.handed:
            one = self.handed[which % len(self.handed)]
            if not self.known[one] and one not in self.by_jobs:
                self.state.kill([one, one])

    @rule(which=ANY)
    def ask_about(self, which):
        if self.handed:
            one = self.handed[which % len(self.handed)]
            if not self.known[one] and one not in self.by_jobs:
                self.state.triage([one])

    @rule(status=st.sampled_from([WorkflowRunStatus.RUNNING, WorkflowRunStatus.STOPPED]))
    def change_run(self, status):
        self.state.set_run_status(status)

    @rule(count=st.integers(0, 5), is_heard=st.booleans())
    def send(self, count, is_heard):
        reports = self.state.take_reports(count)
        self.state.outbox.take_changes()
        if not is_heard:
            self.state.restore_reports()
            return
        self.known.update(one.task_instance_id for one in reports if is_ending(one))
        self.state.confirm_reports()

    # -- the cluster -------------------------------------------------------------------------------------------

    @rule()
    def submit(self):
        self.submitting += self.state.submittable().get("far", [])

    @precondition(lambda self: self.submitting)
    @rule(which=ANY, is_found=st.booleans())
    def accept(self, which, is_found):
        given = self.submitting.pop(which % len(self.submitting))
        if given.plan is None:
            self.state.submitted("far", {one: f"j{one}" for one in given.task_instance_ids}, 1.0)
            return
        self.by_jobs.update(one for one in given.task_instance_ids if one in self.state.alive())
        self.state.packed_handed_over(given)
        self.state.packed_found(given.batch_number, [f"p{given.batch_number}"] if is_found else [], 1.0)

    @precondition(lambda self: self.submitting)
    @rule(which=ANY)
    def lose(self, which):
        given = self.submitting.pop(which % len(self.submitting))
        self.state.withdrawn(self.state.unwanted(given.task_instance_ids))
        rest = [one for one in given.task_instance_ids if one in self.state.alive()]
        self.state.unsubmitted(rest)

    @precondition(lambda self: self.submitting)
    @rule(which=ANY)
    def reject(self, which):
        given = self.submitting.pop(which % len(self.submitting))
        self.state.refused(given.task_instance_ids, "no")

    @rule(which=ANY, status=st.sampled_from([TI.DONE, TI.ERROR, TI.RESOURCE_ERROR, None]))
    def end_job(self, which, status):
        jobs = sorted(self.state.classic("far"))
        if jobs:
            self.classic(jobs[which % len(jobs)], status)

    def classic(self, job, status):
        identity = self.state.classic("far")[job]
        if status is None:
            self.state.classic_stuck(identity, "it will never start")
        elif status is TI.DONE and identity > 0:  # its worker reported
            self.known[identity] += self.state.classic_over([identity]) == [identity]
        else:
            self.state.classic_ended(identity, RemoteExit(status=TI.ERROR))

    # ----------------------------------------------------------------------------------------------------------

    @invariant()
    def every_record_is_valid(self):
        self.state.validate()

    @invariant()
    def no_outcome_is_reported_twice(self):
        assert all(count == 1 for count in self.known.values())


TestDistributor = Distributor.TestCase
