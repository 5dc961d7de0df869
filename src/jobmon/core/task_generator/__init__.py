"""Turns a typed Python function into a task template: `@task_generator()`.

`annotations` determines how the values of each parameter become text (`codecs`), `words` makes text safe for every
shell, `functions` determines what can be imported where, `generator` combines them, `worker` runs the function for a
task. This package imports no other jobmon package, and little of the standard library, because every task imports it;
the client is loaded by name when the first task is created. Start with `generator.py`.
"""

from jobmon.core.task_generator.generator import TaskGenerator, task_generator

__all__ = ["TaskGenerator", "task_generator"]
