"""Logins in progress: nothing is stored about them, so strangers cannot fill the server with them. Pure.

The state that travels through the browser is signed and names the caller's challenge; PKCE's verifier and the nonce are
derived from it. Only the caller, who knows the secret behind the challenge, can finish the login: a link to a login
that somebody else started yields nothing to either of the two.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.agent.handshake import is_same, mac
from jobmon.core.exceptions import InvalidRequest

if TYPE_CHECKING:
    from jobmon.core.wire.login import Purpose

#: How long a user may take to log in, seconds.
LOGIN_SECONDS: Final = 600
_SALT_BYTES: Final = 16
_HASH_DIGITS: Final = 64
_DEVICE: Final = "device"
_HEX: Final = frozenset("0123456789abcdef")


class LoginRefused(InvalidRequest):
    """A login failed: it took too long, belongs to somebody else, or the provider or this server rejects the user."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The secrets of a login in progress: for the provider, `nonce` and PKCE's `verifier`."""

    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """PKCE's challenge, by method S256."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def start(key: bytes, purpose: Purpose, challenge: str, now: float) -> tuple[str, Pending]:
    """Return the state of a new login, and its secrets.

    Args:
        key: signs states.
        purpose: what it ends in.
        challenge: SHA-256 of the caller's secret, in hexadecimal digits.
        now: the time, seconds since 1970.

    Raises:
        LoginRefused: the challenge is not a hash.
    """
    if len(challenge) != _HASH_DIGITS or not _HEX.issuperset(challenge):
        raise LoginRefused("challenge: must be a SHA-256 in hexadecimal digits.")
    state = _signed(key, f"{purpose}.{int(now) + LOGIN_SECONDS}.{os.urandom(_SALT_BYTES).hex()}.{challenge}")
    return state, _pending(key, state)


def finish(key: bytes, purpose: Purpose, state: str, secret: str, now: float) -> Pending:
    """Return the secrets of a login that its caller finishes.

    Raises:
        LoginRefused: it is not that caller's login, or it is too old.
    """
    words = _payload(key, state).split(".")
    challenge = hashlib.sha256(secret.encode()).hexdigest()
    if words[0] != purpose or len(words) != 4 or not is_same(words[3].encode(), challenge.encode()):
        raise LoginRefused("This login was started elsewhere. Log in again here.")
    _require_time(words[1], now)
    return _pending(key, state)


def device_handle(key: bytes, device_code: str, until: float) -> str:
    """Return what the command line shows to ask again for a device code that this server has requested."""
    return _signed(key, f"{_DEVICE}.{int(until)}.{device_code}")


def device_code(key: bytes, handle: str, now: float) -> str:
    """Return the device code of a handle.

    Raises:
        LoginRefused: this server did not issue it, or it is too old.
    """
    kind, _, rest = _payload(key, handle).partition(".")
    until, _, code = rest.partition(".")
    if kind != _DEVICE:
        raise LoginRefused("This login was started elsewhere. Log in again here.")
    _require_time(until, now)
    return code


def _require_time(until: str, now: float) -> None:
    if now >= int(until):
        raise LoginRefused("This login took too long. Log in again.")


def _pending(key: bytes, state: str) -> Pending:
    return Pending(mac(key, f"nonce.{state}").hex(), mac(key, f"verifier.{state}").hex())


def _signed(key: bytes, payload: str) -> str:
    return f"{payload}.{mac(key, payload).hex()}"


def _payload(key: bytes, signed: str) -> str:
    payload, _, signature = signed.rpartition(".")
    if not is_same(signature.encode(), mac(key, payload).hex().encode()):
        raise LoginRefused("This login is not one of this server, or all links were revoked since. Log in again.")
    return payload
