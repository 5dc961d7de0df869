"""The client of the chaos tests: `python workload.py NAME SHAPE COUNT SECONDS [cold|hot]`.

Every task appends one line, the number and ID of its attempt, to its own file in the folder `ledger`.
"""

import os
import sys

COMMAND = 'sleep {seconds}; echo "$JOBMON_ATTEMPT $JOBMON_TASK_INSTANCE_ID" >> ' + "{ledger}/{number}"
MAX_ATTEMPTS = 6
NO_LIMIT = 100_000


def mixed(workflow, template, count, **arguments):
    """Create the tasks of `local`, with every fourth or fifth on the cluster of stand-alone workers."""
    local(workflow, template, count, cluster_name="shed", **arguments)


def local(workflow, template, count, cluster_name="", **arguments):
    """Create four fifths of the tasks in a first layer, then two layers of fan-in; some on another cluster."""
    front_count, middle_count = count * 4 // 5, count // 6
    front = [
        template.create_task(number=number, cluster_name=cluster_name if number % 4 == 3 else "", **arguments)
        for number in range(front_count)
    ]
    middle = [
        template.create_task(
            number=front_count + number,
            cluster_name=cluster_name if number % 5 == 4 else "",
            upstream_tasks=front[number::middle_count],
            **arguments,
        )
        for number in range(middle_count)
    ]
    last_count = count - front_count - middle_count
    last = [
        template.create_task(
            number=front_count + middle_count + number, upstream_tasks=middle[number::last_count], **arguments
        )
        for number in range(last_count)
    ]
    workflow.add_tasks([*front, *middle, *last])


def chain_and_fan(workflow, template, count, **arguments):
    """Create a chain of half of the tasks, then the rest in parallel, then one task that depends on them."""
    task, half = None, count // 2
    for number in range(half):
        task = template.create_task(number=number, upstream_tasks=[task] if task else [], **arguments)
        workflow.add_task(task)
    side = [template.create_task(number=n, upstream_tasks=[task], **arguments) for n in range(half, count - 1)]
    workflow.add_tasks([*side, template.create_task(number=count - 1, upstream_tasks=side, **arguments)])


def shed(workflow, template, count, **arguments):
    """Create the tasks of `chain_and_fan`, all on the cluster of stand-alone workers."""
    chain_and_fan(workflow, template, count, cluster_name="shed", **arguments)


def independent(workflow, template, count, **arguments):
    """Create tasks without dependencies."""
    workflow.add_tasks([template.create_task(number=number, **arguments) for number in range(count)])


SHAPES = {shape.__name__: shape for shape in (mixed, local, chain_and_fan, shed, independent)}


def main(argv):
    from jobmon.client import launching, local_agents
    from jobmon.client.api import Tool
    from jobmon.core.exceptions import WorkflowAlreadyComplete

    first = os.environ.get("CHAOS_FIRST_RUNNER")
    if first and os.environ["CHAOS_PART"] == "distributor":
        launching.distributor_command = lambda run_id: [
            sys.executable, first, "distributor", "--workflow-run-id", str(run_id),
        ]  # fmt: skip
    elif first:
        program = local_agents.AGENT_COMMAND[-1]
        source = os.path.dirname(os.path.dirname(os.path.dirname(program)))
        local_agents.AGENT_COMMAND = (*local_agents.AGENT_COMMAND[:-1], first, "agent", source)
    name, shape, count, seconds, *how = argv
    tool = Tool(name="chaos")
    template = tool.get_task_template("append", COMMAND, node_args=["number"], op_args=["seconds", "ledger"])
    limit = int(os.environ.get("CHAOS_LIMIT", NO_LIMIT))
    workflow = tool.create_workflow(
        name=name, workflow_args=name, default_max_attempts=MAX_ATTEMPTS, max_concurrently_running=limit
    )
    SHAPES[shape](workflow, template, int(count), seconds=seconds, ledger=os.path.abspath("ledger"))
    try:
        status = workflow.run(
            resume=bool(how), reset_running_jobs=how != ["hot"], seconds_until_timeout=3600, configure_logging=True
        )
    except WorkflowAlreadyComplete:  # an earlier client completed the workflow before it died or was replaced
        status = "D"
    print(f"{workflow.workflow_id} {status}", flush=True)
    return 0 if status == "D" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
