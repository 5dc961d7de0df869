"""The jobs of clusters with their own queue: they run one command (`single.py`) or many (`pilot.py`), and report.

A job is started by its path (`python -I -S .../worker_node/process.py`) and imports little of the standard library and
nothing else, because a cluster starts thousands of jobs. It has the loop of a host agent (`agent/program.py`). `job.py`
adds what jobs share: the signals of the cluster, and when to give up on the server. `answers.py` checks what the server
sends. `guarding.py` is for clusters that kill a job but not its commands.
"""
