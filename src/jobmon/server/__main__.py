"""`python -m jobmon.server`: run an embedded or a shared server."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # until everything is loaded (`loops.run_process`), because none of it becomes garbage
    from jobmon.server.process import main

    sys.exit(main())
