"""`python -m jobmon.core.task_generator`: the command of every task that was created from a function."""

import sys

from jobmon.core.task_generator.worker import main

sys.exit(main(sys.argv[1:]))
