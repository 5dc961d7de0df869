"""What the orchestrator calls: heartbeats, learning what changed, queueing. Thin, over gateway, planning and state."""
