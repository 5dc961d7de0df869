"""Shows: `python -m tests.chaos --show NAME`. Each runs one scenario and prints measurements.

rough: 2,000 tasks; the server is killed and restarted three times, the host agent twice, the client once (hot).
away: a server given by `http.service_url` is stopped for minutes while tasks run on both clusters.
recovery: the time from a killed distributor to the next submission, and from a killed server until all parts work.
"""

import contextlib
import signal
import socket
import statistics
import time

import psutil
from sqlalchemy.exc import DBAPIError
from tests.chaos import ledger
from tests.chaos.world import World, wait_for

#: The default settings of a user, except for the number of slots.
ORDINARY = {"JOBMON__MULTIPROCESS__SLOTS": "16"}
ROUGH_TASKS = 2_000
ROUGH_SECONDS_MAX = 300.0
ROUGH_VICTIMS = ("server", "agent", "server", "client", "server", "agent")
AWAY_SECONDS = 120.0
AWAY_TASKS = 60
AWAY_TASK_SECONDS = 5
RECOVERY_TRIALS = 5
DISTRIBUTOR_RECOVERY_SECONDS_MAX = 2.0
SERVER_RECOVERY_SECONDS_MAX = 5.0
#: Polling interval of the measurements.
LOOK_SECONDS = 0.01


def rough(say=print):
    """Kill server, host agent and client in the middle of 2,000 short tasks."""
    world = World(ORDINARY)
    begin = time.monotonic()
    client = world.client("rough", "independent", ROUGH_TASKS, 0.2)
    for at, part in enumerate(ROUGH_VICTIMS, 1):
        wait_for(
            lambda at=at: ledger.done_count(world) >= at * ROUGH_TASKS / (len(ROUGH_VICTIMS) + 1),
            ROUGH_SECONDS_MAX,
        )
        _kill(world, part)
        say(f"  {time.monotonic() - begin:5.1f} s, {ledger.done_count(world)} done: {part} killed")
        if part == "client":
            client.wait()
            client = world.client("rough", "independent", ROUGH_TASKS, 0.2, "hot")
    wait_for(lambda: client.poll() is not None, ROUGH_SECONDS_MAX)
    say(f"  {time.monotonic() - begin:5.1f} s: the client ended with {client.poll()}")
    return _conclude(world, client, say, is_agent_struck=True)


def away(say=print, away_seconds=AWAY_SECONDS):
    """Stop a shared server while tasks run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = World(ORDINARY, JOBMON__HTTP__SERVICE_URL=f"http://127.0.0.1:{port}", JOBMON__HTTP__TOKEN="show")
    server = _start_server(world, port)
    client = world.client("away", "mixed", AWAY_TASKS, AWAY_TASK_SECONDS)
    wait_for(lambda: len(world.of_part("worker")) >= 4 and _running(world) >= 8)
    running = _running(world)
    before = ledger.done_count(world)
    attempts = _value(world, "SELECT MAX(id) FROM task_instance")
    server.terminate()
    server.wait()
    say(f"  the server is stopped: {before} tasks done, {running} running")
    time.sleep(away_seconds)
    finished = len(list(world.ledger.iterdir()))
    say(f"  {away_seconds:g} s later: {finished} commands have completed, the client lives: {client.poll() is None}")
    begin = time.monotonic()
    server = _start_server(world, port)
    up = time.monotonic() - begin
    wait_for(lambda: ledger.done_count(world) >= finished, 60, LOOK_SECONDS)
    told = time.monotonic() - begin
    wait_for(lambda: _value(world, "SELECT MAX(id) FROM task_instance") > attempts, 60, LOOK_SECONDS)
    queued = time.monotonic() - begin
    say(f"  server up after {up:.1f} s; {finished} results there after {told:.1f} s, more queued after {queued:.1f} s")
    wait_for(lambda: client.poll() is not None, ROUGH_SECONDS_MAX)
    return _conclude(world, client, say)


def recovery(say=print):
    """Measure how fast work resumes after a distributor or a server was killed."""
    world = World({**ORDINARY, "JOBMON__MULTIPROCESS__SLOTS": "4", "CHAOS_LIMIT": "60"})
    client = world.client("recovery", "independent", 4_000, 0.1)
    wait_for(lambda: ledger.done_count(world) >= 50)
    distributor = [_time_distributor(world) for _ in range(RECOVERY_TRIALS)]
    server = [_time_server(world) for _ in range(RECOVERY_TRIALS)]
    client.send_signal(signal.SIGINT)
    client.wait()
    _say_times("killed distributor to next submission", distributor, DISTRIBUTOR_RECOVERY_SECONDS_MAX, say)
    _say_times("killed server to news from all parts", server, SERVER_RECOVERY_SECONDS_MAX, say)
    world.orphans()
    world.remove()
    return max(distributor) <= DISTRIBUTOR_RECOVERY_SECONDS_MAX and max(server) <= SERVER_RECOVERY_SECONDS_MAX


def _say_times(what, seconds, most, say):
    say(f"  {what}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s (limit {most:g} s)")


def _time_distributor(world):
    """Return the time from the death of the distributor until a new one takes its first launch from the server."""
    time.sleep(1.5)
    _kill(world, "distributor")
    time.sleep(0.05)  # so that its open request is completed
    begin, batch = time.monotonic() - 0.05, _value(world, "SELECT MAX(id) FROM batch")
    wait_for(lambda: _value(world, "SELECT MAX(id) FROM batch") > batch, 30, LOOK_SECONDS)
    return time.monotonic() - begin


def _time_server(world):
    """Return the time from the death of the server until tasks are queued, launched and done again."""
    time.sleep(1.5)
    _kill(world, "server")
    begin = time.monotonic()
    questions = (
        "SELECT MAX(id) FROM task_instance",  # the orchestrator queues
        "SELECT MAX(id) FROM batch",  # the distributor launches
        "SELECT COUNT(*) FROM task WHERE status = 'D'",  # it reports
    )
    before = [_value(world, question) for question in questions]
    wait_for(
        lambda: all(_value(world, question) > value for question, value in zip(questions, before, strict=True)),
        30, LOOK_SECONDS,
    )  # fmt: skip
    return time.monotonic() - begin


def _value(world, question):
    return world.rows(question)[0][0] or 0


def _running(world):
    with contextlib.suppress(DBAPIError):
        return _value(world, "SELECT COUNT(*) FROM task_instance WHERE status = 'R'")
    return 0


def _start_server(world, port):
    words = ["-m", "jobmon.server", "--db", world.uri, "--port", str(port)]
    server = world.start(words, "server.log")
    assert wait_for(lambda: _answers(port), 20, LOOK_SECONDS), "the server does not start"
    return server


def _answers(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _kill(world, part):
    victims = wait_for(lambda: world.of_part(part), 20)
    for victim in victims:
        with contextlib.suppress(psutil.Error):
            victim.kill()


def _conclude(world, client, say, is_agent_struck=False):
    orphans = world.orphans(15)
    found = ledger.count(world, ledger.Struck(agent=is_agent_struck))
    say(f"  tasks {found.tasks}, attempts {found.attempts}, commands completed {found.lines}")
    say(f"  lost {len(found.lost)}, repeats {len(found.repeated)}, orphans {len(orphans)}, causes {dict(found.causes)}")
    for window, count in sorted(found.explained.items()):
        say(f"  completed, not acknowledged, {window}: {count}")
    for why, count in sorted(found.errors.items()):
        say(f"  not finished {count} times: {why}")
    for one in [*found.lost, *found.repeated, *orphans][:10]:
        say(f"  ! {one}")
    is_clean = client.poll() == 0 and not (found.lost or found.repeated or orphans)
    if is_clean:
        world.remove()
    else:
        say(f"  ! NOT CLEAN, see {world.folder}")
    return is_clean


SHOWS = {show.__name__: show for show in (rough, away, recovery)}
