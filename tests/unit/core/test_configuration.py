"""Where a setting's value comes from, and what is refused."""

from __future__ import annotations

import pytest

from jobmon.core.configuration import SETTINGS, JobmonConfig, data_directory, environment_variable
from jobmon.core.exceptions import ConfigError


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JOBMON_CONFIG_FILE", raising=False)
    path = tmp_path / "jobmon.yaml"
    path.write_text("http:\n  request_timeout: 7\ndb:\n  pool:\n    size: 9\n", encoding="utf-8")
    return path


def test_code_beats_environment_beats_file_beats_default(file, monkeypatch):
    assert JobmonConfig().origin("http", "retries_attempts") == (10, "default")
    assert JobmonConfig().origin("http", "request_timeout") == (7, "jobmon.yaml")
    monkeypatch.setenv("JOBMON__HTTP__REQUEST_TIMEOUT", "8.5")
    assert JobmonConfig().get_float("http", "request_timeout") == 8.5
    config = JobmonConfig(dict_config={"http": {"request_timeout": 9}})
    assert config.origin("http", "request_timeout") == (9, "code")


def test_dotted_keys_nest_in_the_file_and_double_underscore_in_the_environment(file, monkeypatch):
    assert JobmonConfig().get_int("db", "pool.size") == 9
    assert environment_variable("db", "pool.size") == "JOBMON__DB__POOL__SIZE"
    monkeypatch.setenv("JOBMON__DB__POOL__SIZE", "11")
    assert JobmonConfig().get_int("db", "pool.size") == 11


def test_every_default_can_be_read():
    for section, settings in SETTINGS.items():
        assert set(JobmonConfig(dict_config={}).get_section(section)) == set(settings)


def test_unknown_names_give_the_nearest_known(file):
    with pytest.raises(ConfigError, match="did you mean 'request_timeout'"):
        JobmonConfig().get("http", "request_timout")
    with pytest.raises(ConfigError, match="did you mean 'heartbeat'"):
        JobmonConfig().get_section("heartbeats")
    file.write_text("http:\n  request_timout: 7\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"request_timeout.*jobmon\.yaml"):
        JobmonConfig()


@pytest.mark.parametrize(
    "content", ["- a list", "just text", "http: 5", "{unclosed", "http:\n  request_timeout: [1]\n"]
)
def test_a_broken_file_is_refused(file, content):
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError):
        JobmonConfig().get_float("http", "request_timeout")


@pytest.mark.parametrize(
    ("getter", "value"), [("get_int", "1.5"), ("get_int", "x"), ("get_float", True), ("get_boolean", "maybe")]
)
def test_a_value_of_the_wrong_kind_is_named_with_its_origin(getter, value, monkeypatch):
    config = JobmonConfig(dict_config={"http": {"request_timeout": value}})
    with pytest.raises(ConfigError, match=rf"http\.request_timeout must be .*, not {value!r}\.$"):
        getattr(config, getter)("http", "request_timeout")
    monkeypatch.setenv("JOBMON__HTTP__REQUEST_TIMEOUT", "x")
    with pytest.raises(ConfigError, match=r"http\.request_timeout must be .*, not 'x' \(from environment\)\.$"):
        getattr(JobmonConfig(), getter)("http", "request_timeout")


def test_what_is_set_can_be_written_and_read_again(file):
    config = JobmonConfig()
    config.set("db", "pool.size", 3)
    config.write()
    assert JobmonConfig().get_int("db", "pool.size") == 3
    assert JobmonConfig().get_int("http", "request_timeout") == 7


def test_data_directory_follows_the_environment(tmp_path):
    assert data_directory({"JOBMON_DATA_DIR": str(tmp_path)}) == tmp_path
    assert data_directory({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "jobmon"
    assert data_directory({}).parts[-3:] == (".local", "share", "jobmon")
