"""Workers and packed jobs look for the declared files of their commands; real processes."""

import pytest
from stand_in import JOB, NO_TASKS, TASK, StandIn, http, packed, single

WAITS = {"JOBMON__FILES__LATENCY_WAIT": "0.2"}


class Server:
    """Hands out one command with declared files."""

    def __init__(self, command, files):
        self.command, self.files = command, files
        self.is_begun = False

    def __call__(self, route, message):
        if route.endswith("/start"):
            return http(200, {**TASK, "command": self.command, "files": self.files})
        if route.endswith("/report"):
            return http(200, {"kill": [], "unknown": []})
        if message.get("wait_seconds"):
            return None
        row = {"task_instance_ids": [7], "task_ids": [7], "names": ["t"], "commands": [self.command], "attempts": [1]}
        tasks, self.is_begun = NO_TASKS if self.is_begun else {**row, "files": {"7": self.files}}, True
        return http(200, {"job": JOB, "tasks": tasks, "kill": [], "over": True, "has_work": False})


def outcome_of(tmp_path, run, command, **files):
    with StandIn(Server(command, {"inputs": [], "outputs": []} | files)) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}", **WAITS)
    assert code == 0, said
    (report,) = [one for _, message in server.told for one in message.get("reports", ()) if one["status"] != "R"]
    return report


@pytest.mark.parametrize("run", [single, packed])
def test_what_is_found_is_reported(tmp_path, run):
    (tmp_path / "in").write_text("123")
    report = outcome_of(
        tmp_path, run, f"cat {tmp_path}/in > {tmp_path}/out", inputs=[f"{tmp_path}/in"], outputs=[f"{tmp_path}/o*"]
    )
    assert (report["status"], report["cause"], report["missing_file"]) == ("D", None, None)
    assert [(one["is_output"], one["path"], one["matches"], one["size_bytes"]) for one in report["files"]] == [
        (False, f"{tmp_path}/in", 1, 3),
        (True, f"{tmp_path}/o*", 1, 3),
    ]
    assert all(one["modified"] > 1e15 for one in report["files"])


@pytest.mark.parametrize("run", [single, packed])
def test_a_command_without_its_input_is_not_started(tmp_path, run):
    report = outcome_of(tmp_path, run, f"touch {tmp_path}/ran", inputs=[f"{tmp_path}/in"])
    assert (report["status"], report["cause"]) == ("F", "input missing")
    assert report["missing_file"] == f"{tmp_path}/in"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("run", [single, packed])
def test_a_command_without_its_output_has_failed(tmp_path, run):
    report = outcome_of(tmp_path, run, "true", outputs=[f"{tmp_path}/out/"])
    shown = f"{tmp_path}/out/".removeprefix("/tmp/")  # the working folder
    assert (report["status"], report["cause"], report["exit_code"]) == ("E", "output missing", 0)
    assert report["error"] == f"Output {shown} is missing, although the command exited with code 0"
