"""Start `process.py`: Python compiles a script on every start, but caches the modules that it imports.

Any Python version can parse this file, so that a version that is too old reports that.
"""

import os
import sys

PYTHON_MIN = (3, 11)
#: The exit code of a shell that cannot run a command; see `jobmon.core.retry`. No worker exits with it.
EXIT_NO_PYTHON = 126

if __name__ == "__main__":  # our package is not on the path yet; append it
    if sys.version_info < PYTHON_MIN:
        found, wanted = [".".join(str(part) for part in one[:2]) for one in (sys.version_info, PYTHON_MIN)]
        job = os.environ.get("JOBMON_DISTRIBUTOR_ID", "")
        sys.stderr.write("jobmon worker " + job + ": this is Python " + found + "; Jobmon needs " + wanted + "\n")
        sys.exit(EXIT_NO_PYTHON)
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from jobmon.worker_node.process import main

    sys.exit(main(sys.argv[1:]))
