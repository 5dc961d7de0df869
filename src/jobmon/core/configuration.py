"""Settings: code > environment `JOBMON__SECTION__KEY` > file > defaults, and where data lives.

The file is `JOBMON_CONFIG_FILE`, else `./jobmon.yaml`, else `~/.jobmon.yaml`; YAML, a mapping of sections.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobmon.core.exceptions import ConfigError

ENVIRONMENT_PREFIX: Final = "JOBMON__"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its default and what it means (units last)."""

    default: Any
    meaning: str


#: Every setting that exists. The reference page is generated from this.
SETTINGS: Final[Mapping[str, Mapping[str, Setting]]] = {
    "http": {
        "service_url": Setting("", "Address of an institute's server; empty: an embedded server of one's own."),
        "request_timeout": Setting(20, "Longest wait for one answer, seconds."),
        "retries_attempts": Setting(10, "How often a request is tried."),
        "retries_timeout": Setting(300, "How long a request is tried, seconds."),
        "token": Setting("", "Bearer token for `http.service_url`."),
    },
    "db": {
        "sqlalchemy_database_uri": Setting("", "Database of the server; empty: SQLite in the data folder."),
        "pool.size": Setting(5, "Connections kept open to the database."),
        "pool.max_overflow": Setting(10, "Further connections under load."),
        "pool.recycle": Setting(-1, "Age at which a connection is replaced, seconds; -1: never."),
        "pool.pre_ping": Setting(False, "Whether a connection is tried before use."),
    },
    "heartbeat": {
        "workflow_run_interval": Setting(30, "Between two heartbeats of a run, seconds."),
        "task_instance_interval": Setting(90, "Between two heartbeats of an attempt, seconds."),
        "report_by_buffer": Setting(3.1, "Overdue after this many intervals."),
    },
    "distributor": {
        "poll_interval": Setting(10, "Longest time between two questions to a cluster about its jobs, seconds."),
        "cluster_calls_per_minute": Setting(60, "Watching a cluster takes at most so many calls of its commands."),
        "hand_ahead_expiry": Setting(30, "Work handed ahead may be started this long after the last answer, seconds."),
    },
    "worker_node": {
        "command_interrupt_timeout": Setting(10, "Between SIGINT and SIGKILL, seconds."),
        "shell": Setting("/bin/sh", "Shell that runs the commands."),
    },
    "multiprocess": {
        "slots": Setting(0, "Cores' worth of commands that run at once on this machine; 0: the CPUs that may be used."),
    },
    "reaper": {
        "poll_interval_minutes": Setting(5, "Between two passes of the reaper, minutes."),
    },
    "server": {
        "idle_timeout": Setting(900, "An embedded server that nobody uses ends after this time, seconds."),
        "start_timeout": Setting(60, "Longest wait for an embedded server to start, seconds."),
        "long_poll": Setting(30, "How long a request is held open, seconds."),
        "host": Setting(
            "127.0.0.1",
            "Address on which an embedded server listens beside its Unix socket; this host's is added for remote jobs.",
        ),
    },
    "supervisor": {
        "idle_timeout": Setting(60, "A supervisor with nothing to run and nobody connected ends after this, seconds."),
        "cgroups": Setting(
            True, "Hold local commands to the memory they asked for by cgroups where possible; otherwise by watching."
        ),
    },
}


def data_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return the data folder: `JOBMON_DATA_DIR`, else `$XDG_DATA_HOME/jobmon`, else `~/.local/share/jobmon`."""
    environment = os.environ if environment is None else environment
    if folder := environment.get("JOBMON_DATA_DIR"):
        return Path(folder).expanduser().absolute()
    if base := environment.get("XDG_DATA_HOME"):
        return Path(base).expanduser().absolute() / "jobmon"
    return Path.home() / ".local" / "share" / "jobmon"


def config_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the configuration file in force, or None.

    Raises:
        ConfigError: `JOBMON_CONFIG_FILE` names a file that is not there.
    """
    environment = os.environ if environment is None else environment
    if named := environment.get("JOBMON_CONFIG_FILE"):
        if not Path(named).is_file():
            raise ConfigError(f"JOBMON_CONFIG_FILE names {named!r}, which is no file.")
        return Path(named)
    candidates = (Path("jobmon.yaml"), Path.home() / ".jobmon.yaml")
    return next((path for path in candidates if path.is_file()), None)


class JobmonConfig:
    """Reads the settings.

    Args:
        filepath: a YAML file instead of the usual one.
        dict_config: {section: {key: value}}, stronger than everything else.

    Raises:
        ConfigError: the file is not a mapping of sections, or names a setting that does not exist.
    """

    def __init__(self, filepath: str | Path = "", dict_config: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        found = Path(filepath) if filepath else config_file()
        self.filepath = found
        self._file = _flattened(_read_yaml(found), str(found)) if found is not None else {}
        self._code = _flattened(dict_config or {}, "dict_config")

    def get(self, section: str, key: str) -> Any:
        """Return a setting's value; text from the environment stays text.

        Raises:
            ConfigError: there is no such setting.
        """
        return self.origin(section, key)[0]

    def origin(self, section: str, key: str) -> tuple[Any, str]:
        """Return a setting's value and where it comes from: "code", "environment", a file's path, or "default"."""
        setting = _setting(section, key)
        if (section, key) in self._code:
            return self._code[section, key], "code"
        variable = environment_variable(section, key)
        if variable in os.environ:
            return os.environ[variable], "environment"
        if (section, key) in self._file:
            return self._file[section, key], str(self.filepath)
        return setting.default, "default"

    def get_int(self, section: str, key: str) -> int:
        """Return a whole number.

        Raises:
            ConfigError: it is none.
        """
        number = self.get_float(section, key)
        if not number.is_integer():
            raise self._unreadable(section, key, "a whole number")
        return int(number)

    def get_float(self, section: str, key: str) -> float:
        """Return a number.

        Raises:
            ConfigError: it is none.
        """
        value = self.get(section, key)
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except (TypeError, ValueError):
            raise self._unreadable(section, key, "a number") from None

    def get_boolean(self, section: str, key: str) -> bool:
        """Return a truth value: true, yes, on, 1 or false, no, off, 0.

        Raises:
            ConfigError: it is none.
        """
        value = str(self.get(section, key)).strip().lower()
        if value in ("true", "yes", "on", "1"):
            return True
        if value in ("false", "no", "off", "0", ""):
            return False
        raise self._unreadable(section, key, "true or false")

    def get_section(self, section: str) -> dict[str, Any]:
        """Return all settings of a section by key.

        Raises:
            ConfigError: there is no such section.
        """
        return {key: self.get(section, key) for key in _section(section)}

    def set(self, section: str, key: str, value: Any) -> None:
        """Change a setting in this object; `write` saves it."""
        _setting(section, key)
        self._code[section, key] = value

    def write(self, filepath: str | Path = "") -> Path:
        """Save what the file held and what was set in code; return the path written, by default `~/.jobmon.yaml`."""
        import yaml

        path = Path(filepath) if filepath else self.filepath or Path.home() / ".jobmon.yaml"
        sections: dict[str, dict[str, Any]] = {}
        for (section, key), value in {**self._file, **self._code}.items():
            sections.setdefault(section, {})[key] = value
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        before = path.stat().st_mode & 0o777 if path.exists() else 0o666
        # a file that holds a token is its owner's alone, from its first moment
        mode = 0o600 if sections.get("http", {}).get("token") else before
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(yaml.safe_dump(sections, sort_keys=True))
        temporary.replace(path)
        return path

    def _unreadable(self, section: str, key: str, wanted: str) -> ConfigError:
        value, origin = self.origin(section, key)
        where = "" if origin == "code" else f" (from {origin})"
        return ConfigError(f"Setting {section}.{key} must be {wanted}, not {value!r}{where}.")


def environment_variable(section: str, key: str) -> str:
    """Return the name of the variable that overrides a setting; a dot in the key is a double underscore."""
    return f"{ENVIRONMENT_PREFIX}{section}__{key.replace('.', '__')}".upper()


def _section(section: str) -> Mapping[str, Setting]:
    if section not in SETTINGS:
        raise ConfigError(f"There is no section {section!r} in the settings{_nearest(section, SETTINGS)}")
    return SETTINGS[section]


def _setting(section: str, key: str) -> Setting:
    settings = _section(section)
    if key not in settings:
        raise ConfigError(f"There is no setting {section}.{key}{_nearest(key, settings)}")
    return settings[key]


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}."


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Configuration file {path} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"Configuration file {path} must be a mapping of sections, not {type(content).__name__}.")
    return content


def _flattened(sections: Mapping[str, Any], origin: str) -> dict[tuple[str, str], Any]:
    """Bring {section: {key: value}} (keys may nest: pool: {size: 5}) into {(section, key): value}."""
    flat: dict[tuple[str, str], Any] = {}
    for section, entries in sections.items():
        if not isinstance(entries, Mapping):
            raise ConfigError(f"Section {section!r} in {origin} must be a mapping of settings.")
        for key, value in entries.items():
            nested = value.items() if isinstance(value, Mapping) else ((None, value),)
            for inner, leaf in nested:
                name = key if inner is None else f"{key}.{inner}"
                try:
                    _setting(section, name)
                except ConfigError as error:
                    raise ConfigError(f"{error} (in {origin})") from None
                flat[section, name] = leaf
    return flat
