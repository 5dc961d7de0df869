"""`python -m jobmon.server`: run a server, embedded or for an institute."""

from __future__ import annotations

import sys

from jobmon.server.embedded import main

if __name__ == "__main__":
    sys.exit(main())
