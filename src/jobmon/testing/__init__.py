"""For people who test with Jobmon or extend it: true fakes, time that a test moves, and what a plug-in must pass.

`cluster_contract.py` is a class to subclass by the author of a cluster plug-in; `gateways.py` and
`swarm_gateway.py` are servers in memory; `virtual_time.py` moves a loop's clock.
"""
