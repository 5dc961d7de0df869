"""Count the words of all files in data/, then add up the counts. Change the script or add files and run it again.

Only new and changed tasks run, with everything downstream of them. Preview: jobmon workflow plan word_count.py
"""

from pathlib import Path

from jobmon import Tool

tool = Tool("word_count")
count = tool.get_task_template("count", command_template="wc -w < {file:q} > {file:q}.words", node_args=["file"])
total = tool.get_task_template(
    "total", command_template="cat data/*.words | awk '{{n += $1}} END {{print n}}' > {out:q}", node_args=["out"]
)

workflow = tool.create_workflow("words of 2026", default_cluster_name="multiprocess")
counts = [count.create_task(file=str(path)) for path in sorted(Path("data").glob("*.txt"))]
workflow.add_tasks(counts)
workflow.add_task(total.create_task(out="total.txt", upstream_tasks=counts))
print(workflow.run(resume=True))
