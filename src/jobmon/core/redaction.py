"""Hide from readers the values of `env`, and values elsewhere whose names suggest that they are secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"
ENV: Final = "env"
#: Words in a name that suggest that its value is secret.
_SECRET: Final = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|(api|access|private|auth|signing|encryption)_?key"
    r"|(^|_)(pwd|pass|auth|pat)(_|$)|connection_?string",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a name, such as that of an environment variable, suggests that its value is secret."""
    return _SECRET.search(name.replace("-", "_")) is not None


def secret_names(requested: Mapping[str, Any]) -> list[str]:
    """Return the names in a request's `env` whose values seem to be secret."""
    env = requested.get(ENV)
    return sorted(name for name in env if is_secret_name(str(name))) if isinstance(env, Mapping) else []


def redacted_url(url: str) -> str:
    """Return only the scheme of an address whose every part may be secret, such as that of a chat's webhook.

    >>> redacted_url("slack://TokenA/TokenB/TokenC")
    'slack://***'
    """
    scheme, separator, _ = url.partition("://")
    return f"{scheme}://{HIDDEN}" if separator else HIDDEN


def redacted(value: Any) -> Any:
    """Return plain JSON without values that a reader must not see. Names are kept."""
    if isinstance(value, list):
        return [redacted(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _redacted(str(name), inner) for name, inner in value.items()}


def _redacted(name: str, value: Any) -> Any:
    if name == ENV and isinstance(value, dict):
        return dict.fromkeys(value, HIDDEN)
    return _hidden(value) if is_secret_name(name) else redacted(value)


def _hidden(value: Any) -> Any:
    """Return a value of a secret name with all texts and numbers in it hidden."""
    if isinstance(value, list):
        return [_hidden(one) for one in value]
    if isinstance(value, dict):
        return {name: _hidden(inner) for name, inner in value.items()}
    return value if value is None or isinstance(value, bool) or value == "" else HIDDEN
