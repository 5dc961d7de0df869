"""Cluster plug-ins: the built-in ones, and modules that other distributions install into their own `jobmon/plugins`.

A plug-in imports only from `core`. Start with `core/cluster_protocol.py`.
"""

import sys
from os import path

__path__ += [
    folder
    for place in sys.modules["jobmon"].__path__
    if path.isdir(folder := path.join(place, "plugins")) and folder not in __path__
]
