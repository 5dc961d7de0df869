"""Improve an estimate until it is good enough: Newton's method for the square root of 2, one task per step.

Each call of `advance` looks at the output of the step before. It returns the next step with a further call, or nothing.
"""

from jobmon import Tool

tool = Tool(name="until_converged")
step = tool.get_task_template(
    "step", "awk 'BEGIN {{x = {x}; print (x + 2 / x) / 2}}' # step {number}", node_args=["number"], task_args=["x"]
)
report = tool.get_task_template("report", "echo converged > converged.txt", node_args=[])

workflow = tool.create_workflow("square root of 2", default_cluster_name="multiprocess")
first = workflow.add_task(step.create_task(number=0, x=1.0))


def advance(context):
    """Return the next step, unless the last one is close enough."""
    (last,) = context.upstreams
    number, x = int(last.node_args["number"]), float(last.output_tail)
    if abs(x * x - 2) < 1e-4:
        return []
    following = step.create_task(number=number + 1, x=x)
    return [following, context.expand(advance, after=[following], name=f"advance_{number + 1}")]


loop = workflow.expand(advance, after=[first])
workflow.add_task(report.create_task(upstream_tasks=[loop]))
print(workflow.run(resume=True))
