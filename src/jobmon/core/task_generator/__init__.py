"""Turns a typed Python function into a task template: `@task_generator()`.

`annotations` finds for each parameter how its values become text (`codecs`), `words` makes text safe for every shell,
`functions` says what can be imported where, `generator` puts them together, `worker` runs the function for a task.
Imports no other jobmon package, and little of the standard library, for every task imports this; the client is loaded
by its name when the first task is made. Start with `generator.py`.
"""

from jobmon.core.task_generator.generator import TaskGenerator, task_generator

__all__ = ["TaskGenerator", "task_generator"]
