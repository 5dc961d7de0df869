"""Simulate one recorded task: check its inputs, keep cores busy for its time, write its outputs.

Run as `python -I -S burner.py JOBS OFFSET SCALE TASK`: the task's line starts at byte OFFSET of the file JOBS; the
files are in the folder `files` next to JOBS. The line (see `job_line`) is tab-separated: task ID, seconds, busy cores,
number of inputs, then size in bytes and name of each input and each output. Times and sizes are stored as recorded;
SCALE is a factor on both.

Uses only the standard library, and as little of it as possible, because it starts once per task: about ten milliseconds
in total.
"""

import os
import sys
import time

CHUNK_BYTES = 1024 * 1024
LINE_BYTES_MAX = 64 * 1024 * 1024
SLICE_SECONDS = 0.002
EXIT_BAD_INPUT = 3


def scaled_bytes(size: int, scale: float) -> int:
    """Scale a size; a size above 0 stays above 0."""
    return max(1, round(size * scale)) if size > 0 else 0


def job_line(
    task_id: str, seconds: float, busy_cores: float, inputs: list[tuple[str, int]], outputs: list[tuple[str, int]]
) -> bytes:
    """Return the line of a task for `main`; `inputs` and `outputs` are pairs of name and size in bytes."""
    fields = [task_id, repr(float(seconds)), repr(float(busy_cores)), str(len(inputs))]
    for name, size in [*inputs, *outputs]:
        fields += [str(size), name]
    return "\t".join(fields).encode() + b"\n"


def write_file(path: bytes, size: int) -> None:
    """Write `size` bytes; the file appears under its name only when it is complete."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = b"%b.%d" % (path, os.getpid())
    try:
        with open(temporary, "wb", buffering=0) as stream:
            block = bytes(min(size, CHUNK_BYTES))
            left = size
            while left > 0:
                left -= stream.write(block[:left]) or 0
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def problems_of_inputs(folder: bytes, inputs: list[tuple[bytes, int]], scale: float) -> list[str]:
    """Return a sentence for each input that is missing or incomplete."""
    problems = []
    for name, size in inputs:
        shown, wanted = name.decode(), scaled_bytes(size, scale)
        try:
            found = os.stat(folder + b"/" + name).st_size
        except OSError as error:
            problems.append(f"input {shown}: {error.strerror}")
        else:
            if found != wanted:
                problems.append(f"input {shown} has {found} bytes instead of {wanted}")
    return problems


def burn(end: float, share: float) -> None:
    """Keep this process busy for `share` (0 to 1) of the time until the clock shows `end`."""
    start = time.perf_counter()
    used = time.process_time()
    while (now := time.perf_counter()) < end:
        if time.process_time() - used >= share * (now - start):
            time.sleep(min(SLICE_SECONDS, end - now) if share else end - now)


def burn_on_cores(end: float, busy_cores: float) -> None:
    """Keep several cores busy: one process for each, all with an equal share."""
    count = max(1, -int(-busy_cores // 1))
    helpers = []
    for _ in range(count - 1):
        helper = os.fork()
        if helper == 0:
            burn(end, busy_cores / count)
            os._exit(0)
        helpers.append(helper)
    burn(end, busy_cores / count)
    for helper in helpers:
        os.waitpid(helper, 0)


def read_line(jobs: str, offset: int, task: bytes) -> list[bytes]:
    """Return the fields of the task's line; exit if the file was written for another run and has another line there."""
    with open(jobs, "rb") as stream:
        stream.seek(offset)
        fields = stream.readline(LINE_BYTES_MAX).rstrip(b"\n").split(b"\t")
    if fields[0] != task:
        sys.exit(f"{jobs} was written for another run: it does not contain {task.decode()} at {offset}")
    return fields


def main(jobs: str, offset: str, scale_text: str, task: str) -> None:
    """Run one task. The start of the interpreter, about the CPU time used so far, counts towards its time."""
    begin = time.perf_counter() - time.process_time()
    fields = read_line(jobs, int(offset), os.fsencode(task))
    scale = float(scale_text)
    files = [(name, int(size)) for size, name in zip(fields[4::2], fields[5::2], strict=True)]
    inputs, outputs = files[: int(fields[3])], files[int(fields[3]) :]
    folder = os.path.join(os.path.dirname(os.fsencode(jobs)), b"files")
    problems = problems_of_inputs(folder, inputs, scale)
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
        sys.exit(EXIT_BAD_INPUT)
    burn_on_cores(begin + float(fields[1]) * scale, float(fields[2]))
    for name, size in outputs:
        write_file(folder + b"/" + name, scaled_bytes(size, scale))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: burner.py JOBS OFFSET SCALE TASK")
    main(*sys.argv[1:])
