"""Settings: code > environment `JOBMON__SECTION__KEY` > file > defaults, and where data lives.

The file is `JOBMON_CONFIG_FILE` (or `JOBMON__CONFIG_FILE`), otherwise `~/.jobmon.yaml`: YAML, a mapping of sections.
Unknown names in it, or in the environment, cause warnings, and `$NAME` in a value is replaced by that environment
variable. Without `JOBMON_CONFIG_FILE`, `./jobmon.yaml` takes precedence over it for settings that determine neither
what runs nor where a secret is sent.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jobmon.agent import trust
from jobmon.core.credentials import LINK_DAYS_MAX
from jobmon.core.exceptions import ConfigError, UntrustedFile
from jobmon.core.keywords import also_named
from jobmon.core.setting_values import (
    DESTINATIONS_MAX,
    Consent,
    Devices,
    Flag,
    Gpus,
    Names,
    Number,
    Ports,
    Text,
    Values,
    Word,
    unknown_variables,
)
from jobmon.core.texts import SHOWN_CHARACTERS_MAX, shortened

ENVIRONMENT_PREFIX: Final = "JOBMON__"
#: Variables that name the configuration file; the first one that is set counts.
FILE_VARIABLES: Final = ("JOBMON_CONFIG_FILE", "JOBMON__CONFIG_FILE")
#: Settings of a folder, for programs that are started there.
LOCAL_FILE_NAME: Final = "jobmon.yaml"

logger = logging.getLogger(__name__)
#: Warnings already logged by this process; each is logged once.
_warnings: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its default, what it means (units last), its values, and whether messages may show them."""

    default: Any
    meaning: str
    values: Values
    is_secret: bool = False


_HOUR: Final = 3_600
_WEEK: Final = 7 * 24 * _HOUR
_YEARS: Final = 10 * 365 * 24 * _HOUR
_URLS: Final = Text(
    "addresses that begin with http:// or https://, separated by spaces, or empty", r"\s*(https?://\S+(\s+|$))*"
)
_URL: Final = Text("an address that begins with http:// or https://, or empty", r"\s*|\s*https?://\S+\s*")
_MEMBERS: Final = Names("users and @groups, as a list or separated by commas", r"@?[^\s@,]+")
_HEADER: Final = Text("the name of a header, or empty", r"[A-Za-z0-9-]*")
_EVENTS: Final = Names(
    "some of done, failed, stopped, first-failure, stalled", "done|failed|stopped|first-failure|stalled"
)


#: Every setting that exists. The reference page is generated from this.
SETTINGS: Final[Mapping[str, Mapping[str, Setting]]] = {
    "http": {
        "service_url": Setting(
            "",
            "Address of a shared server; empty: your local embedded server. If it has a standby, the addresses of both,"
            " separated by spaces.",
            _URLS,
        ),
        "request_timeout": Setting(20, "Longest wait for one response, seconds.", Number(0, _HOUR, is_above=True)),
        "retries_attempts": Setting(10, "How many times a request is attempted.", Number(1, 1_000, is_whole=True)),
        "retries_timeout": Setting(300, "How long a request is retried, seconds.", Number(0, _WEEK)),
        "token": Setting("", "Bearer token for `http.service_url`.", Text(), is_secret=True),
    },
    "db": {
        "sqlalchemy_database_uri": Setting(
            "",
            "Database of the server; empty: SQLite in the data folder.",
            Text("the URI of a database, such as postgresql://host/name, or empty", "|[^:]+:.*"),
            is_secret=True,
        ),
        "startup_timeout": Setting(
            10, "How long a server waits for its database at startup, seconds.", Number(0, _HOUR)
        ),
        "pool.size": Setting(
            5, "Maximum number of database connections: one writes, the others read.", Number(1, 1_000, is_whole=True)
        ),
        "pool.max_overflow": Setting(
            10,
            "Accepted but has no effect: there are never more than `db.pool.size` connections.",
            Number(-1, 1_000_000),
        ),
        "pool.recycle": Setting(-1, "Accepted but has no effect: a lost connection is replaced.", Number(-1, _YEARS)),
        "pool.pre_ping": Setting(False, "Accepted but has no effect: a lost connection is replaced.", Flag()),
    },
    "heartbeat": {
        "workflow_run_interval": Setting(
            30, "Interval between heartbeats of a run, seconds.", Number(0, _HOUR, is_above=True)
        ),
        "task_instance_interval": Setting(
            90, "Interval between heartbeats of an attempt, seconds.", Number(0, _HOUR, is_above=True)
        ),
        "report_by_buffer": Setting(3.1, "Number of intervals after which a heartbeat is overdue.", Number(1, 1_000)),
    },
    "distributor": {
        "poll_interval": Setting(
            10, "Longest interval between two polls of a cluster, seconds.", Number(0, _HOUR, is_above=True)
        ),
        "cluster_calls_per_minute": Setting(
            60, "Maximum number of calls of a cluster's commands for polling.", Number(0, 60_000, is_above=True)
        ),
        "submission_retry_timeout": Setting(
            600,
            "How long a submission that fails for an unknown reason, or a command whose folder is unusable, is retried"
            " before it fails, seconds.",
            Number(0, _WEEK),
        ),
        "hand_ahead_expiry": Setting(
            30,
            "Prefetched work may start this long after the last response of the server, seconds.",
            Number(0, _HOUR, is_above=True),
        ),
    },
    "run": {
        "timeout": Setting(0, "Timeout of a run, seconds; 0: none. Running tasks finish.", Number(0, _YEARS)),
        "on_change": Setting(
            "error",
            "What a resume does with tasks whose definition changed: `error`, `rerun`, `rerun-only`, `keep`, or one of"
            ' these for each template as JSON, such as `{"sum": "keep", "*": "rerun"}`.',
            Consent("error", "rerun", "rerun-only", "keep"),
        ),
        "allow_removal": Setting(
            False, "Whether a resume may remove recorded tasks that the script no longer contains.", Flag()
        ),
        "check_files": Setting(
            "none",
            "Which declared files a resume looks for: `none`; `outputs`: rerun tasks whose outputs are missing and"
            " needed; `all`: also rerun tasks whose inputs have changed.",
            Word(("none", "outputs", "all")),
        ),
        "plan": Setting(
            "", "`table` or `json`: print what a run would do and exit instead of running.", Word(("", "table", "json"))
        ),
        "expansions_max": Setting(
            1000,
            "Maximum number of calls of expansions in a run; stops loops that never end.",
            Number(1, 1_000_000, is_whole=True),
        ),
    },
    "files": {
        "latency_wait": Setting(
            10,
            "How long a missing file that a template declares is waited for, seconds. Network file systems show"
            " new files late.",
            Number(0, _HOUR),
        ),
    },
    "worker_node": {
        "command_interrupt_timeout": Setting(
            10, "Time from SIGINT to SIGKILL, seconds; SIGTERM is sent halfway.", Number(0, _HOUR)
        ),
        "shell": Setting(
            "/bin/sh",
            "Shell that runs the commands, with its options, such as `bash -euo pipefail`.",
            Text("a program with its options, such as bash -euo pipefail", r".*\S.*"),
        ),
    },
    "multiprocess": {
        "slots": Setting(
            0,
            "Number of cores for commands on this machine; 0: all CPUs available to the process.",
            Number(0, 1_000_000),
        ),
        "gpus": Setting(
            "", "Indices of this machine's GPUs, such as 0,1; 'none'; or empty: those that are detected.", Gpus()
        ),
        "resources": Setting("", "Other countable resources of this machine, such as licence=3,scratch=2.", Devices()),
    },
    "reaper": {
        "poll_interval_minutes": Setting(
            5, "Interval between two passes of the reaper, minutes.", Number(0, 1_440, is_above=True)
        ),
    },
    "server": {
        "idle_timeout": Setting(
            900, "An idle embedded server exits after this time, seconds.", Number(0, _YEARS, is_above=True)
        ),
        "start_timeout": Setting(
            60, "Longest wait for the embedded server to start, seconds.", Number(0, _HOUR, is_above=True)
        ),
        "long_poll": Setting(30, "Duration of a long poll, seconds.", Number(0, _HOUR, is_above=True)),
        "host": Setting(
            "127.0.0.1",
            "Address on which the server listens; the embedded one also has a Unix socket and, for remote jobs, listens"
            " on the host's addresses.",
            Text("an address or a host name", r"\S+"),
        ),
        "ports": Setting("", "Ports on which the server may listen, such as 8070 or 40000-40100; empty: any.", Ports()),
        "socket": Setting("", "Path of a Unix socket on which a shared server also listens, for a proxy.", Text()),
        "standby": Setting(
            False,
            "Whether a shared server waits while another one is active on its PostgreSQL database, and then takes over;"
            " otherwise it exits with an error.",
            Flag(),
        ),
        "socket_group": Setting("", "Group that may connect to `server.socket`; empty: the server's.", Text()),
        "tls_certificate": Setting(
            "",
            "File with a shared server's certificate and its chain; empty: a proxy encrypts. SIGHUP reloads it.",
            Text(),
        ),
        "tls_key": Setting("", "File with the key of `server.tls_certificate`.", Text()),
        "retention_days": Setting(
            0,
            "A server deletes workflows that have not changed for so many days; 0: it keeps everything.",
            Number(0, 36_500),
        ),
        "public_url": Setting("", "Address of a shared server's web page, for links in notifications.", _URL),
        "log_format": Setting(
            "text",
            "Format of the server's log: `text`, or `json` for one JSON object per line.",
            Word(("text", "json")),
        ),
    },
    "auth": {
        "administrators": Setting("", "Users and @groups who may do everything on a shared server.", _MEMBERS),
        "users": Setting(
            "", "Users and @groups who may run workflows; empty: everybody except `auth.readers`.", _MEMBERS
        ),
        "readers": Setting("", "Users and @groups who may only read: everything, except values of `env`.", _MEMBERS),
        "visibility": Setting(
            "all",
            "Whose workflows a user may read: `all`; `group`: those of users who share a group; `own`: only the user's"
            " own.",
            Word(("all", "group", "own")),
        ),
        "sharing_groups": Setting(
            "",
            "With `auth.visibility: group`, @groups whose members read each other's workflows; empty: every group.",
            Names("@groups, as a list or separated by commas", r"@[^\s@,]+"),
        ),
        "oidc_issuer": Setting(
            "",
            "Exact name of a shared server's OpenID Connect provider, such as https://login.example.org; empty: none.",
            Text("an address that begins with https://, or on this host with http://, or empty", r"(https?://\S+)?"),
        ),
        "oidc_client_id": Setting("", "Name of this server at the provider.", Text()),
        "oidc_client_secret": Setting(
            "", "What it proves itself with to the provider; empty: it is a public client.", Text(), is_secret=True
        ),
        "oidc_user_claim": Setting(
            "preferred_username",
            "Claim that names the user. It must be unique and never given to another person; `sub` always is.",
            Text("the name of a claim", ".+"),
        ),
        "oidc_groups_claim": Setting("groups", "Claim that lists the groups of the user; empty: none.", Text()),
        "oidc_scopes": Setting(
            "openid profile",
            "Scopes to request; many providers have one for groups.",
            Names("names of scopes, as a list or separated by spaces", r"[!#-\[\]-~]+"),
        ),
        "oidc_token_days": Setting(
            30,
            "Validity of the personal tokens that `jobmon login` gets from a login, days.",
            Number(0, LINK_DAYS_MAX, is_above=True),
        ),
        "proxy_header": Setting(
            "", "Header in which the proxy in front of a shared server names the user, such as X-Remote-User.", _HEADER
        ),
        "proxy_groups_header": Setting("", "Header in which it names the user's groups, separated by commas.", _HEADER),
        "proxy_secret": Setting(
            "",
            "What it sends as X-Jobmon-Proxy-Secret; empty: it must connect to `server.socket`.",
            Text(),
            is_secret=True,
        ),
    },
    "notify": {
        "urls": Setting(
            "",
            "Apprise addresses to notify, as a list; `{user}` stands for the workflow's owner.",
            Names(
                f"at most {DESTINATIONS_MAX} addresses such as mailto://host, as a list or separated by white space",
                r"[^:\s]+://.*",
                r"\s+",
                DESTINATIONS_MAX,
            ),
            is_secret=True,
        ),
        "events": Setting(
            "done failed first-failure stalled",
            "What to notify about: `done`, `failed`, `stopped`, `first-failure`, `stalled`.",
            _EVENTS,
        ),
        "stalled_after": Setting(
            21600,
            "A run is stalled if no task was running and nothing changed for this long, seconds; 0: never.",
            Number(0, _YEARS),
        ),
    },
    "supervisor": {
        "cgroups": Setting(
            True,
            "Enforce the memory request of local commands with cgroups if possible; otherwise by measuring.",
            Flag(),
        ),
    },
}
#: Key for a section of a file that does not exist in the settings; its content is kept unchanged.
WHOLE_SECTION: Final = ""
#: Scripts may still set these. In a file, any unknown setting is ignored with a warning.
REMOVED_SETTINGS: Final = frozenset({("supervisor", "idle_timeout")})
#: What `./jobmon.yaml` may set: nothing that selects a program, an address or a credential, or determines what is done.
LOCAL_SETTINGS: Final = frozenset(
    {
        *("http.request_timeout", "http.retries_attempts", "http.retries_timeout"),
        *("db.startup_timeout", "db.pool.size", "db.pool.max_overflow", "db.pool.recycle", "db.pool.pre_ping"),
        *("heartbeat.workflow_run_interval", "heartbeat.task_instance_interval", "heartbeat.report_by_buffer"),
        *("distributor.poll_interval", "distributor.cluster_calls_per_minute"),
        *("distributor.submission_retry_timeout", "distributor.hand_ahead_expiry"),
        *("worker_node.command_interrupt_timeout", "multiprocess.slots", "reaper.poll_interval_minutes"),
        *("multiprocess.gpus", "multiprocess.resources", "files.latency_wait"),
        *("server.idle_timeout", "server.start_timeout", "server.long_poll"),
        *("supervisor.cgroups", "run.timeout", "run.expansions_max"),
    }
)


def data_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return the data folder: `JOBMON_DATA_DIR`, else `$XDG_DATA_HOME/jobmon`, else `~/.local/share/jobmon`."""
    environment = os.environ if environment is None else environment
    if folder := environment.get("JOBMON_DATA_DIR"):
        return Path(folder).expanduser().absolute()
    if base := environment.get("XDG_DATA_HOME"):
        return Path(base).expanduser().absolute() / "jobmon"
    return Path.home() / ".local" / "share" / "jobmon"


def config_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the configuration file in use, or None; `./jobmon.yaml` may add to it.

    Raises:
        ConfigError: `JOBMON_CONFIG_FILE` or `JOBMON__CONFIG_FILE` names a file that does not exist.
    """
    environment = os.environ if environment is None else environment
    for variable in FILE_VARIABLES:
        if named := environment.get(variable):
            if not Path(named).is_file():
                raise ConfigError(f"{variable} names {named!r}, which is not a file.")
            return Path(named)
    home = Path.home() / ".jobmon.yaml"
    return home if os.path.lexists(home) else None


class JobmonConfig:
    """Reads the settings.

    Args:
        filepath: a YAML file instead of the default one.
        dict_config: {section: {key: value}}, takes precedence over everything else.

    Raises:
        ConfigError: the file is not a mapping of sections, or `dict_config` names a setting that does not exist.
        UntrustedFile: another user could have written the file, or could read the token in it.
    """

    def __init__(self, filepath: str | Path = "", dict_config: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        found = Path(filepath) if filepath else config_file()
        self.filepath = found
        self._file = _read_settings(found) if found is not None else {}
        is_named = filepath or any(map(os.environ.get, FILE_VARIABLES))
        self._local = {} if is_named else _read_local(Path(LOCAL_FILE_NAME))
        for text in unknown_variables(os.environ, _variables(), ENVIRONMENT_PREFIX):
            _warn_once(text)
        self._code = _flattened(dict_config or {}, "dict_config")
        for section, key in REMOVED_SETTINGS & self._code.keys():
            _warn_once(f"Setting {section}.{key} no longer exists; it is ignored.")
            del self._code[section, key]
        for section, key in self._code:
            setting_of(section, key)

    def get(self, section: str, key: str) -> Any:
        """Return the value of the setting `key` of a `section` as it is written; text is not converted.

        Raises:
            ConfigError: the setting does not exist, or its value is invalid.
        """
        self.parsed(section, key)
        return self.origin(section, key)[0]

    def parsed(self, section: str, key: str) -> Any:
        """Return the value of the setting `key` of a `section` in its own type.

        Raises:
            ConfigError: the setting does not exist, or its value is invalid.
        """
        return self._parsed(section, key, *self.origin(section, key))

    def _parsed(self, section: str, key: str, value: Any, origin: str) -> Any:
        setting = setting_of(section, key)
        try:
            return setting.values.parse(value)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise self._invalid(section, key, setting.values.wanted, value, origin) from None

    def check(self) -> None:
        """Check all settings, so that an invalid one is named before anything is done.

        Raises:
            ConfigError: the value of a setting is invalid.
        """
        for section, settings in SETTINGS.items():
            for key in settings:
                self.parsed(section, key)

    def origin(self, section: str, key: str) -> tuple[Any, str]:
        """Return a setting's value and where it comes from: "code", "environment", a file's path, or "default"."""
        setting = setting_of(section, key)
        if (section, key) in self._code:
            return self._code[section, key], "code"
        variable = environment_variable(section, key)
        if variable in os.environ:
            return os.environ[variable], "environment"
        if (section, key) in self._local:
            return _expanded(self._local[section, key]), LOCAL_FILE_NAME
        if (section, key) in self._file:
            return _expanded(self._file[section, key]), str(self.filepath)
        return setting.default, "default"

    def token(self) -> str:
        """Return `http.token`, which is bound to the server for which it was given.

        Raises:
            ConfigError: the file that contains it names another server than the one in use.
        """
        token, origin = self.origin("http", "token")
        used = str(self.get("http", "service_url") or "").strip().rstrip("/")
        meant = str(_expanded(self._file.get(("http", "service_url"))) or "").strip().rstrip("/")
        if token and origin == str(self.filepath) and meant and used != meant:
            raise ConfigError(
                f"http.token in {origin} was saved for {meant}, but http.service_url is now {used or 'empty'}, so it is"
                f" not sent there. Set {environment_variable('http', 'token')} to that server's token, or to nothing."
            )
        return str(token or "")

    def get_int(self, section: str, key: str) -> int:
        """Return the setting `key` of a `section` as an integer.

        Raises:
            ConfigError: the value is invalid, or not an integer.
        """
        number = self.get_float(section, key)
        if not number.is_integer():
            raise self._invalid(section, key, "a whole number", *self.origin(section, key))
        return int(number)

    def get_float(self, section: str, key: str) -> float:
        """Return the setting `key` of a `section` as a number.

        Raises:
            ConfigError: the value is invalid, or not a number.
        """
        value = self.parsed(section, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._invalid(section, key, "a number", *self.origin(section, key))
        return float(value)

    def get_boolean(self, section: str, key: str) -> bool:
        """Return the setting `key` of a `section` as a boolean: true, yes, on, 1 or false, no, off, 0.

        Raises:
            ConfigError: the value is none of these.
        """
        value = self.parsed(section, key)
        if not isinstance(value, bool):
            raise self._invalid(section, key, "true or false", *self.origin(section, key))
        return value

    def get_section(self, section: str) -> dict[str, Any]:
        """Return all settings of a section by key, as they are written, even if they are invalid.

        Raises:
            ConfigError: there is no such section.
        """
        return {key: self.origin(section, key)[0] for key in _section(section)}

    @also_named(val="value")
    def set(self, section: str, key: str, value: Any) -> None:
        """Set `key` of a `section` to a `value`, which must be valid, in this object; `write` saves it."""
        self._parsed(section, key, value, "code")
        self._code[section, key] = value

    def write(self, filepath: str | Path = "") -> Path:
        """Save the file's content and what was set in code; return the path written, by default `~/.jobmon.yaml`."""
        import yaml

        path = Path(filepath) if filepath else self.filepath or Path.home() / ".jobmon.yaml"
        sections: dict[str, Any] = {}
        settings = {**self._file, **self._code}
        for (section, key), value in settings.items():
            if key == WHOLE_SECTION:
                sections[section] = value
            else:
                sections.setdefault(section, {})[key] = value
        try:
            _replace(trust.resolved(str(path)), yaml.safe_dump(sections, sort_keys=True), settings)
        except trust.Untrusted as error:
            raise UntrustedFile(str(error)) from None
        except OSError as error:
            raise ConfigError(f"The settings cannot be written to {path}: {error.strerror}.") from None
        return path

    def _invalid(self, section: str, key: str, wanted: str, value: Any, origin: str) -> ConfigError:
        setting = SETTINGS[section][key]
        shown = "this value" if setting.is_secret else shortened(repr(value), SHOWN_CHARACTERS_MAX)
        variable, default = environment_variable(section, key), setting.default
        where, remedy = {
            "code": ("set in code", f"Correct it there; the default is {default!r}."),
            "environment": (f"environment variable {variable}", f"Correct it, or: unset {variable}"),
            LOCAL_FILE_NAME: (f"./{LOCAL_FILE_NAME}", f"Correct it there; the default is {default!r}."),
        }.get(origin, (origin, self._command_to_set(section, key, str(default))))
        return ConfigError(f"Setting {section}.{key} must be {wanted}, not {shown} ({where}). {remedy}")

    def _command_to_set(self, section: str, key: str, value: str) -> str:
        file = "" if self.filepath == config_file() else f" --config-file {shlex.quote(str(self.filepath))}"
        return f"To set the default: jobmon config set {section}.{key} {shlex.quote(value)}{file}"


def environment_variable(section: str, key: str) -> str:
    """Return the name of the variable that overrides a setting; a dot in the key is a double underscore."""
    return f"{ENVIRONMENT_PREFIX}{section}__{key.replace('.', '__')}".upper()


def _expanded(value: Any) -> Any:
    """Replace `$NAME` and `${NAME}` in texts by the environment variable; unset ones are left unchanged."""
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    return os.path.expandvars(value) if isinstance(value, str) else value


def _section(section: str) -> Mapping[str, Setting]:
    if section not in SETTINGS:
        raise ConfigError(f"There is no section {section!r} in the settings{_nearest(section, SETTINGS)}")
    return SETTINGS[section]


def setting_of(section: str, key: str) -> Setting:
    """Return a setting.

    Raises:
        ConfigError: the setting does not exist.
    """
    settings = _section(section)
    if key not in settings:
        raise ConfigError(f"There is no setting {section}.{key}{_nearest(key, settings)}")
    return settings[key]


def _nearest(name: object, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; valid names: {', '.join(known)}."


def _replace(path: str, text: str, settings: Mapping[tuple[str, str], Any]) -> None:
    """Write a file atomically. A file that contains a secret is never accessible to other users."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    with open(trust.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:
        if os.path.exists(path) and not _holds_secret(settings):
            os.fchmod(file.fileno(), os.stat(path).st_mode & 0o777)
        file.write(text)
    os.replace(temporary, path)


def _holds_secret(settings: Mapping[tuple[str, str], Any]) -> bool:
    """Return whether settings contain a token or a password, or addresses of receivers, which contain them."""
    return any(
        bool(value) and (key != "sqlalchemy_database_uri" or re.search("://[^/@]*:[^/]*@", str(value)) is not None)
        for (section, key), value in settings.items()
        if section in SETTINGS and key in SETTINGS[section] and SETTINGS[section][key].is_secret
    )


def _read_settings(path: Path) -> dict[tuple[str, str], Any]:
    """Return the settings of a file.

    Raises:
        ConfigError: it cannot be read as settings.
        UntrustedFile: another user could have written it, or could read the token in it.
    """
    try:
        real = trust.resolved(str(path))
        settings = _flattened(_parsed(trust.read_file(real), path), str(path))
        if _holds_secret(settings) and os.stat(real).st_uid == os.geteuid():
            os.close(trust.open_file(real, is_secret=True))
    except trust.Untrusted as error:
        raise UntrustedFile(f"The settings file is rejected: {error}") from None
    except OSError as error:
        raise ConfigError(f"Configuration file {path} cannot be read: {error}") from error
    _warn_of_unknown(settings, path)
    return settings


def _read_local(path: Path) -> dict[tuple[str, str], Any]:
    """Return what a file in the working folder may set; a file that another user could have written is skipped."""
    if not os.path.lexists(path):
        return {}
    try:
        trust.require_folder(os.getcwd())
        content = trust.read_file(str(path))
    except OSError as error:
        _warn_once(f"{path.absolute()} is ignored: {error}")
        return {}
    settings = _flattened(_parsed(content, path), str(path))
    unknown = _warn_of_unknown(settings, path)
    known = settings.keys() - unknown
    refused = sorted({f"{section}.{key}" for section, key in known} - LOCAL_SETTINGS)
    if refused:
        _warn_once(
            f"{path.absolute()} cannot set {', '.join(refused)}: a file in the working folder must not decide what runs"
            " or where a secret is sent. Use ~/.jobmon.yaml, or set JOBMON_CONFIG_FILE to this file."
        )
    return {name: settings[name] for name in known if ".".join(name) in LOCAL_SETTINGS}


def _warn_of_unknown(settings: Iterable[tuple[str, str]], path: Path) -> set[tuple[str, str]]:
    """Warn once about settings that do not exist and are ignored; return them. Several versions may share a file."""
    unknown = set()
    for section, key in settings:
        try:
            setting_of(section, key)
        except ConfigError as error:
            unknown.add((section, key))
            _warn_once(f"{path.absolute()}: {error} It is ignored.")
    return unknown


@cache
def _variables() -> frozenset[str]:
    """Return the environment variables that are read."""
    settings = (environment_variable(section, key) for section, keys in SETTINGS.items() for key in keys)
    return frozenset((*settings, *FILE_VARIABLES))


def _warn_once(text: str) -> None:
    if text not in _warnings:
        _warnings.add(text)
        logger.warning("%s", text)


def _parsed(content: bytes, path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(content.decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"Configuration file {path} cannot be read: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"Configuration file {path} must be a mapping of sections, not {type(found).__name__}.")
    return found


def _flattened(sections: Mapping[str, Any], origin: str) -> dict[tuple[str, str], Any]:
    """Flatten {section: {key: value}} (keys may nest: pool: {size: 5}) into {(section, key): value}.

    A section that does not exist in the settings is kept whole.
    """
    if not isinstance(sections, Mapping):
        raise ConfigError(f"{origin} must be a mapping of sections, not {sections!r}.")
    flat: dict[tuple[str, str], Any] = {}
    for section, entries in sections.items():
        if section not in SETTINGS:
            flat[section, WHOLE_SECTION] = entries
            continue
        if not isinstance(entries, Mapping):
            raise ConfigError(f"Section {section!r} in {origin} must be a mapping of settings.")
        for key, value in entries.items():
            nested = value.items() if isinstance(value, Mapping) else ((None, value),)
            for inner, leaf in nested:
                flat[section, key if inner is None else f"{key}.{inner}"] = leaf
    return flat
