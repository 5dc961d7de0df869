"""Starts `process.py`: what is started by its path is compiled each time, what it imports only once."""

import os
import sys

if __name__ == "__main__":  # our package is not on the path yet, and goes to its end
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from jobmon.worker_node.process import main

    sys.exit(main(sys.argv[1:]))
