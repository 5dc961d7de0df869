"""Services of the orchestrator: heartbeats, synchronization, queueing. Thin layers over gateway, planning and state."""
