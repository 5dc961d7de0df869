"""The whole system in one process on virtual time, with faults drawn from one seed. `python -m tests.simulation`.

Real: client (definition, binding, resume, orchestrator), distributor service, workers, server application on SQLite.
Simulated: `network.py` between them, hosts with agents (`agents.py`), a batch system (`grid.py` with its plug-in
`adapter.py` and its `nodes.py`), processes that die, pause and resume (`processes.py`), and users who restart them
(`users.py`, `world.py`). `scenario.py` draws everything from the seed; `checks.py` and `invariants.py` define what must
hold.
"""
