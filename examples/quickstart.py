"""The first workflow of the README: three greetings side by side, then a command that waits for all three."""

from jobmon.client.api import Tool

tool = Tool(name="quickstart")
greet = tool.get_task_template("greet", command_template="echo Hello {person}", node_args=["person"])
count = tool.get_task_template("count", command_template="echo {number} greetings", node_args=["number"])

workflow = tool.create_workflow(name="quickstart", workflow_args="my first workflow")
greetings = greet.create_tasks(person=["Ada", "Grace", "Katherine"])
workflow.add_tasks(greetings)
workflow.add_task(count.create_task(number=3, upstream_tasks=greetings))
print(workflow.run())
