"""Which cluster a task runs on: for any order of calls on tool, workflow, template and task."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobmon.client.api import Tool
from jobmon.core.constants import DEFAULT_CLUSTER_NAME

CLUSTERS = ("", "farm", "slurm", "multiprocess")
LEVELS = ("template", "workflow", "tool")  # the strongest first
NAMING = {
    "set_default_compute_resources_from_dict": lambda level, name: level.set_default_compute_resources_from_dict(
        cluster_name=name, compute_resources={"cores": 2}
    ),
    "set_default_resource_scales_from_dict": lambda level, name: level.set_default_resource_scales_from_dict(
        cluster_name=name, resource_scales={"memory": 0.5}
    ),
    "update_default_compute_resources": lambda level, name: level.update_default_compute_resources(name, cores=3),
    "update_default_resource_scales": lambda level, name: level.update_default_resource_scales(name, runtime=0.5),
}
CALLS = st.tuples(
    st.sampled_from(LEVELS), st.sampled_from((*NAMING, "set_default_cluster_name")), st.sampled_from(CLUSTERS)
)


@given(st.lists(CALLS, max_size=12), st.sampled_from(CLUSTERS))
def test_the_strongest_level_that_names_a_cluster_decides(calls, named_by_task):
    tool = Tool("t")
    workflow = tool.create_workflow("w")
    template = tool.get_task_template("step", "{a}", node_args=["a"])
    levels = {"tool": tool, "workflow": workflow, "template": template}
    expected = dict.fromkeys(LEVELS, "")
    for level, method, cluster in calls:
        if method == "set_default_cluster_name":
            levels[level].set_default_cluster_name(cluster)
            expected[level] = cluster
        else:
            NAMING[method](levels[level], cluster)
            expected[level] = expected[level] or cluster
    task = workflow.add_task(template.create_task(a=1, cluster_name=named_by_task))
    assert {name: level.default_cluster_name for name, level in levels.items()} == expected
    decided = (named_by_task, *(expected[level] for level in LEVELS), DEFAULT_CLUSTER_NAME)
    assert task.cluster_name == next(filter(None, decided))
