"""The command line's entry point: help, usage errors, and one-line error messages."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import jobmon.cli.main
from jobmon.cli.main import _INSTEAD, COMMANDS, main


@pytest.fixture(autouse=True)
def level():
    """Completion silences the logger of its process, which is that of other tests here."""
    logger = logging.getLogger("jobmon")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Call the command in this process, with a data folder of its own in which no server runs."""
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_no_command_loads_what_records_workflows():
    """It takes longer to load than all else that a reading command needs."""
    sources = sorted(Path(jobmon.cli.main.__file__).parent.rglob("*.py"))
    assert len(sources) > len(COMMANDS)
    assert [path.name for path in sources if "jobmon.client.binding" in path.read_text()] == []


def test_help_names_all_groups_without_loading_them():
    code = "import sys, jobmon.cli.main as m\nm.main(['--help'], standalone_mode=False)\nprint(sorted(sys.modules))"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for group in ("workflow", "task", "server", "config", "version"):
        assert group in text
    for heavy in ("'rich'", "'aiohttp'", "'sqlalchemy'", "'msgspec'", "'jobmon.cli.workflow'"):
        assert heavy not in text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupted_command_exits_with_130(invoke, monkeypatch, error):
    def interrupted():
        if isinstance(error, KeyboardInterrupt):
            raise error
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise error from None  # so does click when a question is interrupted

    monkeypatch.setitem(COMMANDS, "interrupted", (__name__, "_command", "Nothing."))
    command = click.Command("interrupted", callback=interrupted)
    monkeypatch.setattr(sys.modules[__name__], "_command", command, raising=False)
    result = invoke("interrupted")
    assert (result.exit_code, result.output.strip()) == (130, "Interrupted.")


@pytest.mark.parametrize(
    "words", [("workflow", "concurrency", "-m", "1", "--template"), ("workflow", "efficiency", "--mem-strategy")]
)
def test_bytes_that_are_not_utf8_are_a_usage_error(invoke, words):
    result = invoke(*words, "\udcff", "-w", "1")
    assert (result.exit_code, "not UTF-8" in result.output) == (2, True)


@pytest.mark.parametrize("words", [("db", "backup"), ("config", "set", "run.timeout", "3", "--config-file")])
def test_a_name_that_is_too_long_for_a_file_is_a_usage_error(invoke, words):
    result = invoke(*words, "x" * 300)
    assert result.exit_code == 2
    assert result.output.strip().splitlines()[-1].endswith("File name too long.")


@pytest.mark.parametrize("command", ["outputs", "tasks", "plan"])
def test_a_limit_that_no_list_reaches_is_a_usage_error(invoke, command):
    result = invoke("workflow", command, "-w", "1", "-l", "9" * 21)
    assert (result.exit_code, "--limit" in result.output) == (2, True)


def test_unknown_command(invoke):
    result = invoke("nope")
    assert (result.exit_code, "No such command 'nope'" in result.output) == (2, True)


def test_version(invoke):
    result = invoke("version")
    assert (result.exit_code, result.output[:7]) == (0, "jobmon ")


def test_the_version_is_also_an_option(invoke):
    assert invoke("--version").output == invoke("-V").output == invoke("version").output


@pytest.mark.parametrize(
    ("words", "near"),
    [("wokflow status", "workflow"), ("sever start", "server"), ("workflow concurency", "concurrency")],
)
def test_a_typing_error_names_the_nearest_command(invoke, words, near):
    result = invoke(*words.split())
    assert result.exit_code == 2
    assert re.search(f"Did you mean .*'{near}'", result.output)


def test_what_people_type_first_and_old_names_are_told_what_to_use(invoke):
    assert "No command 'workflow_status'; use: jobmon workflow status -w ID" in invoke("workflow_status").output
    for word in ("run", "list", "status", "logs", "task_status", "update_config"):
        result = invoke(word, "x")
        assert (result.exit_code, "use: " in result.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "used"),
    [
        ("plan words.py", "jobmon workflow plan"),
        ("usage x", "jobmon workflow resources usage"),
        ("hold 1", "jobmon task hold or jobmon workflow hold"),
        ("workflow rerun 5", "jobmon task rerun"),
        ("task errors 5", "jobmon workflow errors"),
        ("workflow list", "jobmon workflow status"),
        ("server restart", "jobmon server stop, then jobmon server start"),
    ],
)
def test_a_command_looked_for_in_the_wrong_place_names_the_right_one(invoke, words, used):
    result = invoke(*words.split())
    assert (result.exit_code, f"use: {used}\n" in result.output) == (2, True)


def test_every_replacement_is_a_command():
    for word, text in _INSTEAD.items():
        assert word not in COMMANDS
        for shown in re.findall(r"jobmon ([a-z][a-z ]*)", text):
            command = main
            for name in shown.split():
                command = command.get_command(click.Context(command), name)
                assert command is not None, text
                if not isinstance(command, click.Group):
                    break


def test_an_option_takes_one_id(invoke):
    assert "repeat the option: -w 1 -w 2" in invoke("workflow", "status", "-w", "1", "2").output


def test_config_shows_one_setting(invoke):
    result = invoke("config", "show", "--section", "http", "--key", "request_timeout", "-o", "json")
    assert json.loads(result.output) == {"http": {"request_timeout": 20}}


def test_config_hides_the_token(invoke, monkeypatch):
    monkeypatch.setenv("JOBMON__HTTP__TOKEN", "very-secret")
    result = invoke("config", "show")
    assert "very-secret" not in result.output
    assert "***" in result.output


@pytest.mark.parametrize(
    "arguments", [("config", "show", "--section", "htp"), ("config", "show", "--key", "x"), ("workflow", "tasks")]
)
def test_wrong_use(invoke, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_no_server(invoke):
    assert invoke("server", "status").exit_code == 3
    assert json.loads(invoke("server", "status", "-o", "json").output) == {"running": False}
    assert invoke("server", "stop").output == "No server is running.\n"
    assert invoke("server", "logs").exit_code == 1


def test_malformed_recording(invoke, tmp_path):
    (tmp_path / "bad.json").write_text('{"name": "x"}')
    result = invoke("workflow", "run", "bad.json")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "bad.json" in result.output
    assert invoke("workflow", "run", "gone.json").exit_code == 2


def test_resume_needs_a_name(invoke):
    result = invoke("workflow", "run", "x.json", "--resume")
    assert (result.exit_code, "--workflow-args" in result.output) == (2, True)


def leaves(command, path=("jobmon",)):
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in leaves(main)])
def test_every_help_has_an_example_that_is_that_command(path, command):
    assert (command.epilog or "").startswith(f"Example: {' '.join(path)}")
    assert command.help


def completed(*words):
    """Return the shell's completions of these words, the last of which is incomplete."""
    found = ShellComplete(main, {}, "jobmon", "_JOBMON_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_commands_and_statuses_are_completed(monkeypatch, tmp_path):
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert completed("wor") == ["workflow"]
    assert completed("workflow", "res") == ["reset", "resources", "resume"]
    assert "--status" in completed("workflow", "tasks", "--s")
    assert completed("workflow", "tasks", "-s", "fa") == ["FATAL"]
    assert completed("workflow", "explain", "-w", "") == []  # no server is started for it
    assert not (tmp_path / "data").exists()


def test_the_scripts_of_all_shells_are_printed(invoke):
    for shell in ("bash", "zsh", "fish"):
        result = invoke("completion", shell)
        assert "_JOBMON_COMPLETE" in result.stdout
        assert f"jobmon completion {shell} >" in result.stderr
    assert invoke("completion", "tcsh").exit_code == 2
