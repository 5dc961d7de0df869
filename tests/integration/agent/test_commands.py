"""Real commands: no process of an attempt survives its end, however it tried to escape.

Each test runs its commands in its own process (`driver.py`), because that becomes the parent of all orphans below it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.integration.agent.driver import GRACE_SECONDS, Driver

from jobmon.agent import outcome, outputs, processes, reports
from jobmon.agent.attempts import LEFT_GRACE_SECONDS
from jobmon.agent.commands import STALE_TIMERS_MAX
from jobmon.agent.starting import CANCELLED, Launch

pytestmark = pytest.mark.timeout(60)
#: How a process gets away from its attempt's process group; {} is a command that lasts.
ESCAPES = {
    "plain": "{}",
    "background": "{} & wait",
    "setsid": "setsid -w {}",
    "timeout": "timeout 300 {}; true",
    "timeout in a pipe": "timeout 300 {} | cat",
    "job control": "bash -c 'set -m; {} & wait'",
    "nohup": "nohup {} & wait",
    "double fork": "(setsid sh -c '{} &' &); sleep 60",
    "xargs": "echo 1 2 | xargs -n 1 -P 2 sh -c '{}'",
    "start_new_session": f'{sys.executable} -S -c \'import subprocess; subprocess.run("{{}}", shell=True, '
    "start_new_session=True)'",
    "no environment": "env -i setsid {} & sleep 60",
    "ignores signals": "trap '' INT TERM; setsid -w sh -c 'trap \"\" INT TERM; {}'",
    "closed output": "exec >&- 2>&- <&-; setsid -w {}",
    "stopped": "setsid sh -c 'kill -STOP $$; {}' & sleep 60",
}
#: What may be left by a command that exits by itself.
LEFT = {
    "background": "{} & true",
    "setsid": "setsid {} & true",
    "nohup": "nohup {} & exit 3",
    "double fork": "(setsid sh -c '{} &' &)",
    "no environment": "env -i {} & true",
    "timeout": "timeout 300 {} & true",
}


def living(mark):
    """Return the processes that have a word in their command line."""
    found = []
    for pid in processes.table():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in words:
            found.append(words)
    return found


def lasting(tmp_path, number=0):
    """Return a command that lasts, and what only its processes have in their command lines."""
    mark = f"{100 + number}.{abs(hash(str(tmp_path))) % 10**8:08d}"
    return f"sleep {mark}", mark


def ended(driver, commands, how):
    """End these; return name -> cause, and name -> what was left of it when it counted as ended."""
    names = dict(enumerate(commands, start=1))
    for identity, name in names.items():
        driver.start(identity, commands[name][0], runtime=1.0 if how == "time limit" else None)
    driver.start(0, "sleep 60")
    driver.until(lambda: all(living(mark) for _, mark in commands.values()))
    time.sleep(0.1)
    if how == "stop":
        driver.commands.stop(names, outcome.KILLED, GRACE_SECONDS)
    found, left = {}, {}
    while names.keys() - driver.ended.keys():
        driver.look()
        for identity in driver.ended.keys() - found.keys():
            found[identity] = driver.ended[identity].cause
            left[identity] = living(commands[names[identity]][1])
    assert 0 in driver.commands.live, "the neighbour runs on"
    driver.commands.stop([0], outcome.KILLED, 0.0)
    driver.finish()
    return {names[one]: cause for one, cause in found.items()}, {names[one]: some for one, some in left.items() if some}


@pytest.mark.parametrize("how", ["stop", "time limit"])
def test_nothing_is_left_of_what_was_ended_wherever_its_processes_went(apart, tmp_path, how):
    commands = {}
    for number, (name, escape) in enumerate(ESCAPES.items()):
        command, mark = lasting(tmp_path, number)
        commands[name] = escape.replace("{}", command), mark
    causes, left = apart(ended, commands, how)
    assert left == {}
    assert causes == dict.fromkeys(ESCAPES, outcome.KILLED if how == "stop" else outcome.OUT_OF_TIME)


def test_what_commands_leave_that_exit_by_themselves_is_ended_before_their_attempts_count_as_ended(apart, tmp_path):
    commands = {}
    for number, (name, escape) in enumerate(LEFT.items()):
        command, mark = lasting(tmp_path, number)
        commands[name] = escape.replace("{}", command), mark
    exits, left = apart(left_behind, commands)
    assert left == {}
    assert {name: exit_code for name, (exit_code, _) in exits.items()} == {**dict.fromkeys(LEFT, 0), "nohup": 3}
    assert max(seconds for _, seconds in exits.values()) < LEFT_GRACE_SECONDS, "of the command, not of what it left"


def left_behind(driver, commands):
    names = dict(enumerate(commands, start=1))
    for identity, name in names.items():
        driver.start(identity, commands[name][0])
    exits, left = {}, {}
    while driver.commands.live:
        driver.look()
        for identity in driver.ended.keys() - exits.keys():
            attempt = driver.ended[identity]
            exits[identity] = attempt.exit_code, attempt.seconds
            left[identity] = living(commands[names[identity]][1])
    return {names[one]: how for one, how in exits.items()}, {names[one]: some for one, some in left.items() if some}


def ran(driver, command, **values):
    driver.start(1, command, **values)
    return driver.finish()[1].exit_code


def test_a_background_process_hears_sigterm_and_may_save_its_state(apart, tmp_path):
    """Shells let background processes ignore SIGINT, and exit of it themselves."""
    saving = f"{sys.executable} -S -c '{SAVES}' {tmp_path}/saved"
    assert apart(saves, f"{saving} & wait", tmp_path) == "saved"


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(0.05); open(sys.argv[1], "w").write("saved"); sys.exit(0)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1], "w").close()
time.sleep(60)
"""


def saves(driver, command, folder):
    driver.start(1, command)
    driver.until((folder / "saved").exists)
    driver.commands.stop([1], outcome.KILLED, 1.0)
    driver.finish()
    return (folder / "saved").read_text()


def test_what_nothing_is_known_of_ends_with_the_program(apart, tmp_path):
    """A process cleared its environment and left its group while its attempt ran, and two attempts ended at once."""
    command, mark = lasting(tmp_path)
    assert apart(strays, f"env -i setsid {command} & sleep 0.1", mark) == (1, [])


def strays(driver, command, mark):
    driver.start(1, command)
    driver.start(2, "true")
    time.sleep(0.4)
    driver.finish()
    before = len(living(mark))
    driver.commands.leave()
    return before, living(mark)


def hang_until(path, name=""):
    """Let output files be opened only when something is at a path, as in a folder whose file server is away.

    With a name, only files whose paths contain it hang.
    """
    opened = outputs.opened

    def hang(stdout, stderr):
        while name in stdout and not path.exists():
            time.sleep(0.01)
        return opened(stdout, stderr)

    outputs.opened = hang


def test_a_log_folder_that_hangs_holds_up_neither_the_loop_nor_a_kill(apart, tmp_path):
    assert apart(hangs) == (CANCELLED, 0)
    assert not (tmp_path / "ran").exists()


def hangs(driver):
    hang_until(driver.folder / "go")
    driver.start(1, f"touch {driver.folder}/ran")
    driver.start(2, "exit 0")
    driver.commands.look()  # a loop that waits for the folder never comes here
    driver.commands.stop([1], outcome.KILLED, 1.0)
    (driver.folder / "go").touch()
    driver.finish()
    return driver.ended[1].not_started.why, driver.ended[2].exit_code


def test_a_command_whose_log_folder_hangs_does_not_hold_up_the_next(apart):
    assert apart(passes) == [2, 1]


def passes(driver):
    hang_until(driver.folder / "go", "1.log")
    driver.start(1, "true")
    driver.start(2, "true")
    driver.until(lambda: 2 in driver.ended)
    (driver.folder / "go").touch()
    return list(driver.finish())


def test_commands_that_start_together_keep_their_own_folders_and_umasks(apart, tmp_path):
    count = 40
    apart(together, count)
    found = {number: (tmp_path / f"{number}.log").read_text().split() for number in range(1, count + 1)}
    assert found == {number: [str(tmp_path / f"work{number % 3}"), f"00{2 + number % 2}7"] for number in found}


def together(driver, count):
    for number in range(3):
        (driver.folder / f"work{number}").mkdir()
    for number in range(1, count + 1):
        folder = driver.folder / f"work{number % 3}"
        driver.start(number, "pwd; umask", directory=str(folder), umask=0o027 + 0o010 * (number % 2))
    driver.finish()


def test_a_command_that_starts_late_is_reaped_even_if_it_exits_before_that_is_known(apart):
    assert apart(late) == [7, 7]


def late(driver):
    hang_until(driver.folder / "go")
    driver.start(1, "exit 7")
    driver.start(2, "exit 7")
    (driver.folder / "go").touch()
    time.sleep(0.2)
    driver.finish()
    return [driver.ended[one].exit_code for one in (1, 2)]


def test_a_signal_reaches_a_command_that_is_being_started(apart):
    assert apart(forwards) == (signal.SIGTERM, signal.SIGTERM)


def forwards(driver):
    driver.start(1, "exec sleep 60")
    driver.commands.pass_on(signal.SIGTERM)  # the result of the start is not collected yet
    first = driver.finish()[1].signal
    hang_until(driver.folder / "go")
    driver.start(2, "exec sleep 60")
    driver.commands.pass_on(signal.SIGTERM)
    (driver.folder / "go").touch()
    return first, driver.finish()[2].signal


@pytest.mark.parametrize("planted", ["link", "pipe", "folder"])
def test_what_somebody_planted_in_place_of_an_output_file_is_neither_followed_nor_waited_for(apart, tmp_path, planted):
    path, mine = tmp_path / "t.1.log", tmp_path / "mine"
    mine.write_text("precious")
    {"link": lambda: path.symlink_to(mine), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[planted]()
    step, why = apart(refused)
    assert step == "output"
    assert str(path) in why
    assert mine.read_text() == "precious"


def refused(driver):
    driver.start(1, "echo mine", stdout=str(driver.folder / "t.1.log"))
    not_started = driver.finish()[1].not_started
    return not_started.step, not_started.why


@pytest.mark.parametrize(
    ("values", "step", "number"),
    [
        ({"directory": "/no/such/folder"}, "directory", 2),
        ({"stdout": "/dev/null/t.log"}, "output", 20),
        ({"words": ["/no/such/shell"]}, "command", 2),
        ({"words": ["/bin/echo", "x" * 200_000]}, "", None),
        ({"words": ["/bin/echo", "\0"]}, "", None),
        ({"directory": "/\0"}, "directory", None),
    ],
)
def test_which_step_failed_is_told(apart, tmp_path, values, step, number):
    assert apart(fails, values) == (step, number, True)


def fails(driver, values):
    given = {"words": ["/bin/true"], "directory": "/", "stdout": str(driver.folder / "1.log"), **values}
    attempt = driver.commands.start(Launch(1, given["words"], {}, given["directory"], 0o022, given["stdout"]))
    driver.finish()
    return attempt.not_started.step, attempt.not_started.number, bool(attempt.not_started.why)


def test_a_folder_of_output_that_was_removed_is_made_again(apart, tmp_path):
    output = tmp_path / "logs" / "0" / "t.log"
    assert apart(ran_with_output, "echo hi; echo no >&2", str(output)) == 0
    assert output.read_text() == "hi\nno\n"


def ran_with_output(driver, command, stdout):
    return ran(driver, command, stdout=stdout)


def test_a_working_folder_that_was_made_anew_is_entered_anew(apart, tmp_path):
    assert apart(started_again, tmp_path / "work") == [1, "directory", 0]


def started_again(driver, work):
    work.mkdir()
    found = [ran(driver, "test -e here", directory=str(work))]
    work.rmdir()
    driver.start(1, "true", directory=str(work))
    found.append(driver.finish()[1].not_started.step)
    work.mkdir()
    (work / "here").touch()
    return [*found, ran(driver, "test -e here", directory=str(work))]


def test_timers_of_attempts_that_ended_are_dropped_while_a_long_one_runs(apart):
    kept, is_kept = apart(timers)
    assert kept <= 2 * STALE_TIMERS_MAX
    assert is_kept


def timers(driver):
    driver.start(0, "exec sleep 60", runtime=600.0)
    for identity in range(1, 201):
        driver.start(identity, ":", runtime=600.0)
        driver.until(lambda identity=identity: identity in driver.ended)
    found = driver.commands._timers
    driver.commands.stop([0], outcome.KILLED, 0.0)
    return len(found), any(attempt == 0 for _, attempt in found)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_how_long_a_command_ran_does_not_depend_on_a_clock_that_is_set_meanwhile(apart, jump):
    seconds, told = apart(jumps, jump)
    assert 0.05 < seconds < 30.0
    assert told == pytest.approx(seconds, abs=1e-5)  # times of day have some 2e-7 s


def jumps(driver, jump):
    attempt = driver.start(1, "sleep 0.1")
    real = time.time
    time.time = lambda: real() + jump
    driver.finish()
    return attempt.seconds, attempt.ended_at - attempt.started_at


def test_commands_are_marked_and_inherit_nothing_but_three_descriptors(apart, tmp_path):
    mark = apart(marked, "echo $JOBMON_ATTEMPT_MARK; ls -l /proc/self/fd; grep SigIgn /proc/self/status")
    told, *_, ignored = (tmp_path / "1.log").read_text().splitlines()
    descriptors = [line.rpartition(" -> ")[2] for line in (tmp_path / "1.log").read_text().splitlines() if "->" in line]
    assert told == f"outer-9:{mark}-1"
    assert [one for one in descriptors if not one.startswith("/proc/")] == ["/dev/null", *[str(tmp_path / "1.log")] * 2]
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0


def marked(driver, command):
    for descriptor in [one for one in map(int, os.listdir("/proc/self/fd")) if one > 2]:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)  # whatever pytest was started with
    driver.commands.set_environment({"PATH": os.environ["PATH"], processes.MARK_VARIABLE: "outer-9"})
    ran(driver, command)
    return driver.commands.marks.root


def test_a_dead_program_s_commands_are_found_by_session_mark_and_tree(apart, tmp_path):
    command, mark = lasting(tmp_path)
    assert apart(orphaned, command, mark) == (True, [])


def orphaned(driver, command, mark):
    """A program that dies at once leaves a command, a marked process in a session of its own, and one below that."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        other = Driver(driver.folder)
        other.commands.marks = processes.Marks("feedfacefeedface")
        other.start(1, f"{command} & setsid sh -c '(env -i setsid {command}; true); true' & sleep 60; {command}")
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(pid, 0)
    return processes.end_left(pid, "feedfacefeedface", ()) >= 4, living(mark)


# -- declared files ----------------------------------------------------------------------------------------------------


def _with_late_input(driver):
    attempt = driver.start(1, "cat in > out", inputs=[f"{driver.folder}/in"], outputs=[f"{driver.folder}/out"])
    is_waiting = not attempt.ran
    late = driver.folder / "late"
    late.write_text("1234")
    late.rename(driver.folder / "in")  # at once with all its content
    found = driver.finish()[1]
    return is_waiting, found.exit_code, found.cause, found.missing_file, found.inputs.seen, found.outputs.seen


def test_a_command_waits_for_its_inputs(apart, tmp_path):
    is_waiting, code, cause, missing, inputs, written = apart(_with_late_input)
    assert (is_waiting, code, cause, missing) == (True, 0, None, "")
    assert [one[:3] for one in inputs + written] == [(f"{tmp_path}/in", 1, 4), (f"{tmp_path}/out", 1, 4)]


def _judged(driver, command, values):
    driver.commands.searches.latency_wait_seconds = 0.1
    driver.start(1, command, **values)
    report = reports.of_end(driver.finish()[1], b"", "host")
    return {name: report.get(name) for name in ("status", "cause", "error", "missing_file", "files", "exit_code")}


def test_without_its_input_a_command_is_not_started(apart, tmp_path):
    found = apart(_judged, "echo > ran", {"inputs": [f"{tmp_path}/in"]})
    assert (found["status"], found["cause"]) == ("F", outcome.INPUT_MISSING)
    assert (found["error"], found["missing_file"]) == ("Input in is missing", f"{tmp_path}/in")
    assert not (tmp_path / "ran").exists()


def test_a_command_that_does_not_write_its_output_has_failed(apart, tmp_path):
    found = apart(_judged, "true", {"outputs": [f"{tmp_path}/*.csv"]})
    assert (found["status"], found["cause"], found["exit_code"]) == ("E", outcome.OUTPUT_MISSING, 0)
    assert found["error"] == "Output *.csv matches no file, although the command exited with code 0"


def test_the_outputs_of_a_command_that_failed_are_not_searched_for(apart, tmp_path):
    found = apart(_judged, "exit 3", {"outputs": [f"{tmp_path}/*.csv"]})
    assert (found["status"], found["cause"], found["missing_file"]) == ("E", outcome.EXIT_CODE, None)


def _killed_while_waiting(driver):
    attempt = driver.start(1, "true", inputs=[f"{driver.folder}/never"])
    driver.commands.stop([1], outcome.KILLED, GRACE_SECONDS)
    driver.finish()
    return attempt.not_started.why, attempt.ran


def test_a_command_that_waits_for_its_inputs_can_be_cancelled(apart):
    assert apart(_killed_while_waiting) == (CANCELLED, False)
