"""The agent's entry point: the client writes the setup as one line to standard input, which then stays open.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import gc
import json
import os

from jobmon.agent.host import HostAgent
from jobmon.agent.host_access import AgentHost

SETUP_BYTES_MAX = 4 * 1024 * 1024
_READ_BYTES = 65_536


def main() -> int:
    """Run the agent; return its exit code."""
    setup = read_setup()
    if setup is None:
        return 0
    gc.disable()  # the agent creates no reference cycles
    setup["pid"] = os.getpid()
    agent = HostAgent(setup, AgentHost(setup))
    return agent.settle() if "dead_agents" in setup else agent.run()


def read_setup() -> dict[str, object] | None:
    """Return the setup sent by the client; None: the client has exited, or sent too much."""
    received = b""
    while b"\n" not in received:
        piece = os.read(0, _READ_BYTES)
        if not piece or len(received) > SETUP_BYTES_MAX:
            return None
        received += piece
    found: dict[str, object] = json.loads(received)
    return found
