"""The distributor: the process that launches the attempts of one run, monitors them, and reports their outcomes.

`state.py` makes decisions (pure), `batch.py` translates (pure), `service.py` is the main loop, `classic.py` handles one
cluster with its own queue, `gateway.py` is the interface to the server, and `process.py` is the program.
"""
