"""Start `main.py`: Python compiles a script on every start, but caches the modules that it imports."""

import os
import sys

if __name__ == "__main__":  # our package is not on the path yet; append it
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from jobmon.agent.main import main

    sys.exit(main())
