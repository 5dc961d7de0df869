"""See `process.py`."""

import sys

from jobmon.distributor.process import main

if __name__ == "__main__":
    sys.exit(main())
