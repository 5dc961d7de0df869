"""See `process.py`."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # until everything is loaded (`loops.run_process`): nothing loaded here becomes garbage
    from jobmon.distributor.process import main

    sys.exit(main())
