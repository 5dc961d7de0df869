"""Run commands on this machine: the common base of `sequential` and `multiprocess`.

`supervisor.py` is a separate program (standard library only) that outlives the distributor: it starts commands, waits
for them and reports their exits. `jobmon.agent` does that work; `commands.py` and `command_journal.py` add a queue and
a record. The rest runs in the distributor: `link.py` communicates with the supervisor, `jobmon.agent.recovery` handles
what a dead supervisor left, and `cluster.py` makes it a cluster.
"""
