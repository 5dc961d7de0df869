"""What all components share: state machines (`fsm`), vocabulary (`constants`), messages (`wire`), settings, plug-ins.

Imports no other jobmon package. Start with `fsm.py`, then `wire/`.
"""
