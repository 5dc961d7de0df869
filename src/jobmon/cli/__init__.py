"""The commands: `jobmon ...`. Each module is a group, loaded when one of its commands is called.

`main.py` is the way in and the table of exit codes; `rendering.py` is the only module that knows tables and JSON.
"""
