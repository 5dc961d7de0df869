"""A scheduler in a folder for the plug-in of the how-to: `submit`, `jobs`, `kill-jobs`; one process per step."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["MINI_SCHEDULER_HOME"])
NUMBERS_MAX = 10_000
RUN = 'sh "$0/script" </dev/null; echo $? >"$0/new.$MY_STEP"; mv "$0/new.$MY_STEP" "$0/code.$MY_STEP"'


def submit(words: list[str]) -> None:
    options = dict(zip(words[::2], words[1::2], strict=True))
    if options.get("--queue") == "no-such-queue":
        sys.exit("submit: no such queue")
    for number in range(1, NUMBERS_MAX):
        with contextlib.suppress(FileExistsError):
            (job := HOME / str(number)).mkdir()
            break
    (job / "script").write_text(sys.stdin.read())
    for step in range(1, int(options.get("--steps", 1)) + 1):
        process = subprocess.Popen(
            ["sh", "-c", RUN, str(job)],
            env={**os.environ, "MY_JOB": job.name, "MY_STEP": str(step)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        (job / f"pid.{step}").write_text(str(process.pid))
    (job / "name").write_text(options["--name"])
    print(job.name)


def jobs() -> None:
    print("ID STATE CODE NAME")
    for name in sorted(HOME.glob("*/name")):
        steps = sorted(name.parent.glob("pid.*"))
        for pid in steps:
            step = pid.suffix[1:]
            killed, code = name.with_name(f"killed.{step}").exists(), name.with_name(f"code.{step}")
            state = "killed" if killed else "ended" if code.exists() else "running"
            identity = f"{name.parent.name}.{step}" if len(steps) > 1 else name.parent.name
            print(identity, state, code.read_text().strip() if state == "ended" else "-", name.read_text())


def kill(identities: list[str]) -> None:
    for identity in identities:
        number, _, step = identity.partition(".")
        job, step = HOME / number, step or "1"
        if not (job / f"code.{step}").exists():
            (job / f"killed.{step}").touch()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int((job / f"pid.{step}").read_text()), signal.SIGKILL)


if __name__ == "__main__":
    {"submit": submit, "jobs": lambda _: jobs(), "kill-jobs": kill}[sys.argv[1]](
        [word for word in sys.argv[2:] if word not in ("--mine", "--with-ended")]
    )
