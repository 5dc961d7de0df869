"""Run commands on this machine: the common base of `sequential` and `multiprocess`.

Host agents (`jobmon.agent`) run the commands; the client starts them. `cluster.py` says what they may use here, from
`machine.py` (CPUs, memory) and `devices.py` (GPUs and other resources). `earlier.py` ends what an earlier version left.
"""
