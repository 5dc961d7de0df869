"""The distributor: the process that submits the attempts of one run to clusters, and monitors and reports their jobs.

`state.py` makes decisions (pure), `batch.py` translates (pure), `service.py` is the main loop, `classic.py` handles one
cluster, `gateway.py` is the interface to the server, and `process.py` is the program. `direct.py` is another program:
the agent of a cluster whose plug-in runs commands itself.
"""
