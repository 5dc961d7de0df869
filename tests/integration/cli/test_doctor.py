"""`jobmon doctor`: everything is fine, and the advice for each problem."""

from __future__ import annotations

import pytest

from jobmon.agent import cgroups
from jobmon.cli import doctor


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch):
    """Do not let the doctor find that this machine is slow."""
    monkeypatch.setattr(doctor, "WORKER_SECONDS_MAX", doctor.WORKER_TIMEOUT_SECONDS)


def test_a_sound_installation_is_fine(session):
    found = {one["what"]: one for one in session.json("doctor")}
    assert {"settings", "data folder", "file system", "space", "worker", "server", "version", "clock"} <= set(found)
    assert {"database", "cluster multiprocess", "memory of local commands"} <= set(found)
    assert all(one["fine"] for one in found.values()), found
    text = session.invoke("doctor")
    assert "ok   cluster multiprocess: plug-in multiprocess" in text
    assert "\x1b" not in text


def test_what_needs_doing_is_said(session):
    bad = {"JOBMON__WORKER_NODE__SHELL": "/no/shell", "JOBMON__HTTP__SERVICE_URL": "http://127.0.0.1:9"}
    text = session.invoke("doctor", code=1, env=bad)
    assert "FIX  shell: /no/shell cannot run commands: /no/shell does not exist" in text
    assert "FIX  server: " in text
    text = session.invoke("doctor", code=1, env={"JOBMON__HTTP__REQUEST_TIMEOUT": "soon"})
    assert "FIX  settings: Setting http.request_timeout must be a number" in text


def test_how_memory_is_limited_is_said(session):
    groups = cgroups.found()
    said = "enforced by measuring; no cgroup" if groups is None else f"limited by cgroups below {groups.base}"
    if groups is not None:
        groups.close()
    assert f"ok   memory of local commands: {said}" in session.invoke("doctor")
    text = session.invoke("doctor", env={"JOBMON__SUPERVISOR__CGROUPS": "false"})
    assert "ok   memory of local commands: enforced by measuring; supervisor.cgroups is off" in text


def test_clocks_space_and_logouts(tmp_path):
    assert doctor.clock(0.5).is_fine
    assert "NTP" in doctor.clock(-60).advice
    file = tmp_path / "logind.conf"
    file.write_text("[Login]\n#KillUserProcesses=no\n")
    assert doctor.logout(file).is_fine
    file.write_text("[Login]\nKillUserProcesses = yes\n")
    assert "linger" in doctor.logout(file).advice
    assert not doctor.Finding("x", "y", "z").is_fine


def test_version_names_the_parts(session):
    text = session.invoke("version", "--components")
    assert "plug-ins " in text
    assert "multiprocess" in text
    assert "server 0" in text or "server 1" in text


def test_no_server_is_exit_code_3(session):
    text = session.invoke(
        "workflow",
        "status",
        code=3,
        env={"JOBMON__HTTP__SERVICE_URL": "http://127.0.0.1:9", "JOBMON__HTTP__RETRIES_ATTEMPTS": "1"},
    )
    assert text.count("\n") == 1
