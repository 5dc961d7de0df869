"""Split a file into parts whose number is known only when it has been split, work on each part, and gather.

`split` is an expansion: once `cut` is done, its function adds one task per part. `gather` waits for all of them.
"""

from pathlib import Path

from jobmon import Tool

tool = Tool(name="split_map_gather")
cut = tool.get_task_template("cut", "rm -f part.* && split -l {lines} input.txt part.", task_args=["lines"])
count = tool.get_task_template("count", "wc -w < {part:q} > {part:q}.words", node_args=["part"])
gather = tool.get_task_template("gather", "cat part.*.words | awk '{{n += $1}} END {{print n}}' > total.txt")

workflow = tool.create_workflow("split, map, gather", default_cluster_name="multiprocess")
cutting = workflow.add_task(cut.create_task(lines=100))


def split(context):
    """Return one task per part."""
    parts = sorted(path.name for path in Path().glob("part.??"))
    return [count.create_task(part=part) for part in parts]


counts = workflow.expand(split, after=[cutting])
workflow.add_task(gather.create_task(upstream_tasks=[counts]))
print(workflow.run(resume=True))
