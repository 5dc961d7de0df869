"""The process that launches the attempts of one run, watches them and reports how they fare.

`state.py` decides (pure), `batch.py` translates (pure), `service.py` is the loop, `classic.py` one cluster with a
queue of its own, `gateway.py` the door to the server, `process.py` the program.
"""
