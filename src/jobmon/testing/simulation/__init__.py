"""The whole system in one process on virtual time, with faults from one seed. `python -m jobmon.testing.simulate`.

Real: client (definition, binding, resume, orchestrator), distributor service, workers, server application on SQLite.
Played: `network.py` between them, two clusters (`farm.py`; `grid.py` with its plug-in `adapter.py` and its `nodes.py`),
processes that die, pause and come back (`parts.py`), and users who start them again (`users.py`, `world.py`).
`scenario.py` draws everything from the seed, `checks.py` and `laws.py` say what must hold.
"""
