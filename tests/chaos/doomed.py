"""A server or distributor that kills itself at a crash point, once; the environment tells which point.

CHAOS_POINT is "before:N" or "after:N": the N-th commit of the server's writer, or the N-th submission of the
distributor. Having died, it leaves the file CHAOS_MARK.
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
    """Do a step, and die before or after it if it is the one."""
    global counted  # noqa: PLW0603 - one count per process is what is meant
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
    from jobmon.server import database, embedded

    class DoomedTransaction(database.Transaction):
        def commit(self):
            passing(super().commit)

    database.Transaction = DoomedTransaction
    sys.exit(embedded.main(["--embedded", "--data-dir", os.environ["JOBMON_DATA_DIR"]]))


def distributor():
    from jobmon.core.cluster import load_plugin
    from jobmon.plugins.local.cluster import LocalDistributor

    def doom(kind, name):
        plain = getattr(kind, name)
        setattr(kind, name, lambda self, *arguments: passing(plain, self, *arguments))

    doom(LocalDistributor, "spawn")
    doom(load_plugin("shed").get_cluster_distributor_class(), "submit_to_batch_distributor")
    sys.argv = ["jobmon.distributor", *sys.argv[2:]]
    runpy.run_module("jobmon.distributor", run_name="__main__")


if __name__ == "__main__":
    {"server": server, "distributor": distributor}[sys.argv[1]]()
