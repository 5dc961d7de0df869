"""The stand-alone worker of clusters with a queue of their own: runs one command, beats, reports.

Started by its path (`python -I -S .../worker_node/process.py`), standard library only and little of it, because a
cluster starts thousands. `run.py` decides, `child.py` is the command, `gateway.py` the door to the server,
`spool.py` keeps what could not be delivered. A job that runs many commands (`--packed`): `pilot.py` with `work.py`, and
`lane.py`, a door that does not block.
"""
