"""The stand-alone worker for clusters with their own queue: runs one command, sends heartbeats, and reports.

It is started by its path (`python -I -S .../worker_node/process.py`) and imports little of the standard library and
nothing else, because a cluster starts thousands of workers. `run.py` decides, `agent/commands.py` runs the command,
`agent/gateway.py` sends requests to the server, `undelivered.py` keeps reports on disk. A job that runs many commands
(`--packed`) uses `pilot.py` with `taking.py`, and runs them like a host agent (`agent/running.py`).
"""
