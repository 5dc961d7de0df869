"""The source of a setting's value, and rejected values."""

from __future__ import annotations

import os

import pytest
import yaml

from jobmon.core import configuration
from jobmon.core.configuration import (
    LOCAL_SETTINGS,
    SETTINGS,
    JobmonConfig,
    config_file,
    data_directory,
    environment_variable,
)
from jobmon.core.exceptions import ConfigError, UntrustedFile


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in configuration.FILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
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
    with pytest.raises(ConfigError, match="did you mean 'request_timeout'"):
        JobmonConfig(dict_config={"http": {"request_timout": 7}})


def test_a_misspelt_variable_is_a_warning_once(monkeypatch, caplog):
    monkeypatch.setattr(configuration, "_warnings", set())
    monkeypatch.setenv("JOBMON__RUN__TIMEOUTS", "7")
    monkeypatch.setenv("JOBMON__RUN__TIMEOUT", "8")
    monkeypatch.setenv("JOBMON__QQQ__ZZZ", "7")
    assert JobmonConfig().get_float("run", "timeout") == 8
    JobmonConfig()
    assert sorted(caplog.messages) == [
        "Environment variable JOBMON__QQQ__ZZZ is no setting; see: jobmon config show. It is ignored.",
        "Environment variable JOBMON__RUN__TIMEOUTS is no setting; did you mean JOBMON__RUN__TIMEOUT? It is ignored.",
    ]


def test_unknown_names_in_a_file_are_warnings_once_and_are_kept(file, monkeypatch, caplog):
    monkeypatch.setenv("JOBMON_CONFIG_FILE", str(file))
    monkeypatch.setattr(configuration, "_warnings", set())
    file.write_text(
        "http:\n  request_timout: 7\n  request_timeout: 8\nweb: {a: {b: 1}}\nversion: 3\n", encoding="utf-8"
    )
    config = JobmonConfig()
    JobmonConfig()
    assert config.get_int("http", "request_timeout") == 8
    assert [line.split(": ", 1)[0] for line in caplog.messages] == [str(file)] * 3
    assert "did you mean 'request_timeout'" in caplog.text
    config.set("http", "retries_attempts", 3)
    config.write()
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == {
        "http": {"request_timout": 7, "request_timeout": 8, "retries_attempts": 3},
        "web": {"a": {"b": 1}},
        "version": 3,
    }


def test_variables_in_a_file_are_expanded_and_written_back_as_they_were(file, monkeypatch):
    monkeypatch.setenv("JOBMON_CONFIG_FILE", str(file))
    monkeypatch.setenv("JOBMON_TEST_HOST", "server.example")
    text = "http:\n  service_url: http://$JOBMON_TEST_HOST:${JOBMON_TEST_PORT}\n"
    file.write_text(text, encoding="utf-8")
    config = JobmonConfig()
    assert config.get("http", "service_url") == "http://server.example:${JOBMON_TEST_PORT}"
    config.write()
    assert file.read_text(encoding="utf-8") == text


def test_the_file_may_be_named_by_either_variable(tmp_path, monkeypatch):
    other = tmp_path / "other.yaml"
    other.write_text("http:\n  request_timeout: 9\n", encoding="utf-8")
    monkeypatch.setenv("JOBMON__CONFIG_FILE", str(other))
    assert JobmonConfig().get_int("http", "request_timeout") == 9
    monkeypatch.setenv("JOBMON__CONFIG_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="JOBMON__CONFIG_FILE names"):
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
    with pytest.raises(
        ConfigError, match=rf"http\.request_timeout must be .*, not {value!r} \(set in code\)\. Correct it"
    ):
        getattr(config, getter)("http", "request_timeout")
    monkeypatch.setenv("JOBMON__HTTP__REQUEST_TIMEOUT", "x")
    with pytest.raises(
        ConfigError, match=r"http\.request_timeout must be .*, not 'x' \(env.*unset JOBMON__HTTP__REQUEST_TIMEOUT$"
    ):
        getattr(JobmonConfig(), getter)("http", "request_timeout")


def test_what_is_set_can_be_written_and_read_again(file):
    config = JobmonConfig(file)
    config.set("db", "pool.size", 3)
    assert config.write() == file
    assert JobmonConfig().get_int("db", "pool.size") == 3
    assert JobmonConfig().get_int("http", "request_timeout") == 7


@pytest.fixture
def home_file(file, monkeypatch):
    """The user's own settings, beside a file in the working folder."""
    path = file.parent / "home" / ".jobmon.yaml"
    path.parent.mkdir(mode=0o700)
    path.write_text("http: {service_url: 'http://home', retries_attempts: 3, request_timeout: 1}\n")
    monkeypatch.setattr(configuration, "_warnings", set())
    return path


def test_a_file_in_the_working_folder_adds_to_that_of_the_user(home_file):
    config = JobmonConfig()
    assert config.origin("http", "request_timeout") == (7, "jobmon.yaml")
    assert config.origin("http", "retries_attempts") == (3, str(home_file))
    assert config.get("http", "service_url") == "http://home"
    assert config_file() == home_file
    config.set("http", "retries_timeout", 9)
    assert config.write() == home_file
    assert JobmonConfig(home_file).get("http", "request_timeout") == 1


def test_the_working_folder_decides_neither_what_runs_nor_where_a_secret_goes(file, home_file, caplog):
    assert {f"{section}.{key}" for section, keys in SETTINGS.items() for key in keys} - LOCAL_SETTINGS == {
        *("http.service_url", "http.token", "db.sqlalchemy_database_uri", "worker_node.shell", "server.host"),
        *("server.ports", "server.socket", "server.socket_group", "server.tls_certificate", "server.tls_key"),
        *("server.public_url", "server.log_format", "server.retention_days", "server.standby"),
        *("notify.urls", "notify.events", "notify.stalled_after"),
        *("auth.administrators", "auth.users", "auth.readers", "auth.visibility", "auth.sharing_groups"),
        *("auth.oidc_issuer", "auth.oidc_client_id", "auth.oidc_client_secret", "auth.oidc_user_claim"),
        *("auth.oidc_groups_claim", "auth.oidc_scopes", "auth.oidc_token_days"),
        *("auth.proxy_header", "auth.proxy_groups_header", "auth.proxy_secret"),
        *("run.on_change", "run.allow_removal", "run.check_files", "run.plan"),
    }
    file.write_text("http: {service_url: 'http://evil', request_timeout: 5}\nworker_node: {shell: /tmp/evil}\n")
    for _ in range(2):
        config = JobmonConfig()
        assert config.get("http", "service_url") == "http://home"
        assert config.get("worker_node", "shell") == "/bin/sh"
        assert config.get("http", "request_timeout") == 5
    assert len(caplog.messages) == 1
    assert "jobmon.yaml cannot set http.service_url, worker_node.shell:" in caplog.text
    assert "JOBMON_CONFIG_FILE" in caplog.text


@pytest.mark.parametrize("way", ["file", "folder", "sticky folder", "parent", "link", "pipe", "stranger"])
def test_a_file_in_the_working_folder_that_others_could_have_written_is_skipped(file, home_file, way, caplog, tmp_path):
    if way == "file":
        file.chmod(0o666)
    elif way == "folder":
        tmp_path.chmod(0o777)
    elif way == "sticky folder":
        tmp_path.chmod(0o1777)
    elif way == "parent":
        tmp_path.parent.chmod(0o777)
    elif way == "stranger":
        if os.geteuid():
            pytest.skip("needs root to give a file away")
        os.chown(file, 65534, 65534)
    else:
        file.rename(tmp_path / "other")
        os.mkfifo(file) if way == "pipe" else file.symlink_to("other")
    try:
        config = JobmonConfig(dict_config={})
    except UntrustedFile:
        assert way in ("folder", "parent")  # the user's own home is below it
    else:
        assert config.origin("http", "request_timeout") == (1, str(home_file))
        assert len(caplog.messages) == 1
        assert "jobmon.yaml is ignored: " in caplog.text
    finally:
        tmp_path.parent.chmod(0o700)


def test_settings_that_others_could_have_written_are_refused(home_file):
    home_file.chmod(0o646)
    with pytest.raises(UntrustedFile, match=r"settings file is rejected: .*\.jobmon\.yaml may be written by others"):
        JobmonConfig()
    assert home_file.stat().st_mode & 0o777 == 0o646


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_token_that_others_can_read_is_refused(home_file, mode):
    home_file.chmod(mode)
    assert JobmonConfig().get("http", "service_url") == "http://home"
    home_file.write_text("http: {token: secret}\n")
    with pytest.raises(UntrustedFile, match=r"may be read by others \(mode 0\d+\)\. Type: chmod 600 .*\.jobmon\.yaml"):
        JobmonConfig()
    home_file.chmod(0o600)
    assert JobmonConfig().get("http", "token") == "secret"


@pytest.mark.parametrize(
    ("uri", "is_secret"),
    [
        ("postgresql://ada:password@host/jobmon", True),
        ("postgresql://ada@host:5432/jobmon", False),
        ("sqlite:////data/jobmon.sqlite", False),
    ],
)
def test_a_password_of_a_database_that_others_can_read_is_refused(home_file, uri, is_secret):
    home_file.write_text(f"db: {{sqlalchemy_database_uri: '{uri}'}}\n")
    home_file.chmod(0o644)
    if is_secret:
        with pytest.raises(UntrustedFile, match="may be read by others"):
            JobmonConfig()
    else:
        assert JobmonConfig().get("db", "sqlalchemy_database_uri") == uri


def test_a_linked_file_of_settings_is_written_where_it_is(home_file, tmp_path):
    kept = tmp_path / "dotfiles.yaml"
    home_file.rename(kept)
    home_file.symlink_to(kept)
    config = JobmonConfig()
    config.set("http", "token", "secret")
    config.write()
    assert home_file.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert JobmonConfig().get("http", "token") == "secret"


def test_data_directory_follows_the_environment(tmp_path):
    assert data_directory({"JOBMON_DATA_DIR": str(tmp_path)}) == tmp_path
    assert data_directory({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "jobmon"
    assert data_directory({}).parts[-3:] == (".local", "share", "jobmon")


def test_a_token_is_for_the_server_that_its_file_names(file, monkeypatch):
    file.write_text("http: {service_url: 'https://one.example/', token: secret}\n")
    file.chmod(0o600)
    assert JobmonConfig(file).token() == "secret"
    monkeypatch.setenv("JOBMON__HTTP__SERVICE_URL", "https://one.example")
    assert JobmonConfig(file).token() == "secret"
    monkeypatch.setenv("JOBMON__HTTP__SERVICE_URL", "https://other.example")
    with pytest.raises(ConfigError, match=r"saved for https://one\.example.*is now https://other\.example"):
        JobmonConfig(file).token()
    monkeypatch.setenv("JOBMON__HTTP__TOKEN", "of-the-other")
    assert JobmonConfig(file).token() == "of-the-other"


def test_a_setting_that_was_removed_is_ignored_with_a_warning(caplog):
    config = JobmonConfig(dict_config={"supervisor": {"idle_timeout": 2}, "http": {"request_timeout": 3}})
    assert config.get("http", "request_timeout") == 3
    assert "Setting supervisor.idle_timeout no longer exists; it is ignored." in caplog.text
    with pytest.raises(ConfigError, match=r"There is no setting http\.nothing"):
        JobmonConfig(dict_config={"http": {"nothing": 2}})


def test_plugins_find_the_paths_by_their_former_name():
    from jobmon.core import paths, places

    assert places is paths


@pytest.mark.parametrize("value", [-1, "x", None, float("nan"), True, [20]])
def test_what_cannot_be_a_setting_is_refused_when_it_is_set(value):
    config = JobmonConfig()
    with pytest.raises(ConfigError, match=r"http\.request_timeout must be a number above 0 .* \(set in code\)"):
        config.set("http", "request_timeout", value)
    assert config.get("http", "request_timeout") == 20
    config.set("http", "request_timeout", val="30")
    assert config.get_float("http", "request_timeout") == 30


@pytest.mark.parametrize("name", [None, 3, ""])
def test_a_name_of_any_type_is_an_error_that_names_it(name):
    for call in (JobmonConfig().get_section, lambda section: JobmonConfig().get(section, "x")):
        with pytest.raises(ConfigError, match=f"There is no section {name!r}"):
            call(name)
    with pytest.raises(ConfigError, match=r"There is no setting http\."):
        JobmonConfig().get("http", name)


def test_sections_that_are_no_mapping_and_places_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"dict_config must be a mapping of sections, not \[1\]"):
        JobmonConfig(dict_config=[1])
    for path in (tmp_path, tmp_path / "none" / "w.yaml"):
        with pytest.raises(ConfigError, match=f"cannot be written to {path}: "):
            JobmonConfig().write(path)
