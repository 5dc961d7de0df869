"""Settings on the command line: written with their type, rejected by name, and traced to their source."""

from __future__ import annotations

import json
import stat

import pytest
import yaml
from click.testing import CliRunner

from jobmon.cli.main import main


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JOBMON_CONFIG_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["config", *map(str, arguments)])


def test_a_setting_is_written_typed_and_read_back(invoke, tmp_path):
    assert invoke("set", "http.request_timeout", "30").exit_code == 0
    assert invoke("set", "db.pool.pre_ping", "yes").exit_code == 0
    file = tmp_path / ".jobmon.yaml"
    assert yaml.safe_load(file.read_text()) == {"http": {"request_timeout": 30}, "db": {"pool.pre_ping": True}}
    text = invoke("show", "--section", "http").output
    assert f"request_timeout: 30  # {file}" in text
    assert "retries_attempts: 10  # default" in text
    assert yaml.safe_load(text)["http"]["request_timeout"] == 30
    found = json.loads(invoke("show", "--section", "http", "-o", "json", "--origins").output)
    assert found["http"]["request_timeout"] == {"value": 30, "origin": str(file)}


def test_another_file_begins_empty_and_a_token_is_private(invoke, tmp_path):
    invoke("set", "http.request_timeout", "30")
    other = tmp_path / "other.yaml"
    assert invoke("set", "http.token", "secret", "--config-file", other).exit_code == 0
    assert yaml.safe_load(other.read_text()) == {"http": {"token": "secret"}}
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_the_environment_is_stronger(invoke, monkeypatch):
    monkeypatch.setenv("JOBMON__HTTP__REQUEST_TIMEOUT", "7")
    assert "JOBMON__HTTP__REQUEST_TIMEOUT" in invoke("set", "http.request_timeout", "30").output
    assert "request_timeout: '7'  # environment" in invoke("show", "--section", "http").output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("http.request_timout", "3"), "did you mean 'request_timeout'?"),
        (("http.request_timeout", "soon"), "must be a number"),
        (("request_timeout", "3"), "SECTION.KEY"),
    ],
)
def test_wrong_settings_are_refused(invoke, arguments, text, tmp_path):
    result = invoke("set", *arguments)
    assert (result.exit_code, text in result.output) == (2, True)
    assert "code" not in result.output
    assert "dict_config" not in result.output
    assert not (tmp_path / ".jobmon.yaml").exists()
