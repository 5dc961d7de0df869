"""What a user's script holds: definitions, binding, starting and watching a run.

Definitions (`tool`, `task_template`, `task`, `workflow`) are values; `binding.py` does the HTTP, `running.py` says in
which order a run comes about, `swarm/` decides what runs next. Imports `core` only. Start with `workflow.py`.
"""
