"""Read models: functions `(session, ids..., query) -> answer`, each run in one snapshot. They are read-only.

`swarm.py` serves orchestrators, `launching.py` open polls of distributors, `monitoring.py` users.
"""
