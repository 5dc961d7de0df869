"""What all actors share: the law (`fsm`), the words (`constants`), the messages (`wire`), settings, plug-in interface.

Imports no other jobmon package. Start with `fsm.py`, then `wire/`.
"""
