"""Tools for testing with Jobmon or extending it: realistic fakes, virtual time, and the test suite for plug-ins.

`cluster_contract.py` is a test class that authors of cluster plug-ins subclass; `gateways.py` and `swarm_gateway.py`
are in-memory servers; `virtual_time.py` moves a loop's clock.
"""
