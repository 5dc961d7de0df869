"""Running commands on this machine: what `sequential` and `multiprocess` are made of.

`supervisor.py` is a program of its own (standard library only) that outlives the distributor: it starts commands,
waits for them and tells how they ended. It is made of `commands.py`, `attempts.py`, `starting.py`, `memory.py` and
`cgroups.py`. Everything else lives in the distributor: `link.py` talks to the supervisor, `remains.py` deals with what
a dead one left, `cluster.py` makes a cluster of it.
"""
