"""A server, distributor or host agent that kills itself once, at the crash point named in the environment.

CHAOS_POINT is "before:N" or "after:N": the N-th commit of the server's writer, the N-th submission of the distributor,
or the N-th command that the agent starts. It creates the file CHAOS_MARK when it dies.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

WHEN, _, NUMBER = os.environ.get("CHAOS_POINT", "after:0").partition(":")
MARK = Path(os.environ.get("CHAOS_MARK", "mark"))
counted = 0


def passing(step, *arguments):
    """Do a step, and die before or after it if it is the crash point."""
    global counted  # noqa: PLW0603 - the count is meant to be per process
    counted += 1
    is_the_one = counted == int(NUMBER) and not MARK.exists()
    if is_the_one and WHEN == "before":
        die()
    result = step(*arguments)
    if is_the_one:
        die()
    return result


def die():
    MARK.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def server():
    from jobmon.server import database, process

    class DoomedTransaction(database.Transaction):
        def commit(self):
            passing(super().commit)

    database.Transaction = DoomedTransaction
    sys.exit(process.main(["--embedded", "--data-dir", os.environ["JOBMON_DATA_DIR"]]))


def distributor():
    from jobmon.core.cluster import load_plugin

    def doom(kind, name):
        plain = getattr(kind, name)
        setattr(kind, name, lambda self, *arguments: passing(plain, self, *arguments))

    doom(load_plugin("shed").get_cluster_distributor_class(), "submit_to_batch_distributor")
    sys.argv = ["jobmon.distributor", *sys.argv[2:]]
    runpy.run_module("jobmon.distributor", run_name="__main__")


def agent():
    sys.path.append(sys.argv[2])  # an agent is started without site packages
    from jobmon.agent import commands, main

    plain = commands.Commands.start
    commands.Commands.start = lambda self, launch: passing(plain, self, launch)
    sys.exit(main.main())


if __name__ == "__main__":
    {"server": server, "distributor": distributor, "agent": agent}[sys.argv[1]]()
