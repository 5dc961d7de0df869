"""The whole system in one process on virtual time, with faults from one seed. `python -m jobmon.testing.simulate`.

Real: client (definition, binding, resume, orchestrator), distributor service, server application on SQLite. Played:
`network.py` between them, `farm.py` the cluster, processes that die, pause and come back (`parts.py`), and the user
who starts them again (`world.py`). `scenario.py` draws everything from the seed, `checks.py` says what must hold.
"""
