"""The commands: `jobmon ...`. Each module is a group, loaded when one of its commands is called.

`main.py` is the entry point and has the table of exit codes; only `rendering.py` deals with tables and JSON.
"""
