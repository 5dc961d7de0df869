"""The first workflow of the README: three greetings in parallel, then a command that depends on all three."""

from jobmon import Tool

tool = Tool(name="quickstart")
tool.update_default_compute_resources("", shell="bash -euo pipefail")
greet = tool.get_task_template("greet", command_template="echo Hello {person:q}", node_args=["person"])
count = tool.get_task_template("count", command_template="echo {number} greetings", node_args=["number"])

workflow = tool.create_workflow(name="quickstart", workflow_args="my first workflow")
greetings = greet.create_tasks(person=["Ada", "Grace", "Katherine"])
workflow.add_tasks(greetings)
workflow.add_task(count.create_task(number=3, upstream_tasks=greetings))
print(workflow.run())
