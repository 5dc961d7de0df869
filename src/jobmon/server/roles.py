"""Who may do what on a shared server, and which requests a proxy has authenticated. Pure.

A proxy that authenticates users names them in a header. The header counts only if nobody else can have written it: on
the server's Unix socket, or together with a secret that the proxy adds. The address of the sender proves nothing: every
local user has 127.0.0.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from jobmon.agent.handshake import is_same
from jobmon.core.credentials import FOREVER, Owner, Principal, Reader, User
from jobmon.core.exceptions import ConfigError, InvalidRequest
from jobmon.core.texts import NAME_CHARACTERS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Lower-case name of the header in which the proxy proves itself.
SECRET_HEADER: Final = b"x-jobmon-proxy-secret"
SECRET_CHARACTERS_MIN: Final = 16
GROUP_PREFIX: Final = "@"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_SEPARATORS: Final = re.compile(r"[\s,;]+")


class UntrustedProxy(InvalidRequest):
    """A request names a user in the proxy's header, but does not come from the proxy."""


@dataclass(frozen=True, slots=True)
class Members:
    """Users and groups of a role; `groups` without their prefix."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str]) -> Members:
        """Return the members that a setting names; groups begin with `@`."""
        names = list(names)
        groups = frozenset(name.removeprefix(GROUP_PREFIX) for name in names if name.startswith(GROUP_PREFIX))
        return cls(frozenset(name for name in names if not name.startswith(GROUP_PREFIX)), groups)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self.users or self.groups)

    def has(self, user: str, groups: frozenset[str]) -> bool:
        """Return whether a user is a member."""
        return user in self.users or bool(groups & self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Roles of a shared server.

    Args:
        administrators: may do everything.
        users: may run workflows and change their own; empty: everybody who is not in `readers`.
        readers: may only read.
    """

    administrators: Members = Members()
    users: Members = Members()
    readers: Members = Members()

    def principal(self, user: str, groups: frozenset[str] = frozenset()) -> Principal | None:
        """Return the principal of an authenticated user; None: the user has no role here."""
        if self.administrators.has(user, groups):
            return Owner(user)
        if self.users.has(user, groups):
            return User(user, groups)
        if self.readers.has(user, groups):
            return Reader(FOREVER, user=user)
        return None if self.users else User(user, groups)


class Visibility(StrEnum):
    """Whose workflows a user of a shared server may read."""

    ALL = "all"
    GROUP = "group"
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What users see of each other. Administrators and readers see everything.

    Args:
        visibility: whose workflows a user may read, besides the user's own.
        groups: with `Visibility.GROUP`, the groups whose members see each other's workflows; empty: every group.
    """

    visibility: Visibility = Visibility.ALL
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, visibility: str, groups: Iterable[str]) -> Sharing:
        """Return what the settings say; groups begin with `@`."""
        return cls(visibility=Visibility(visibility), groups=Members.of(groups).groups)

    def readable_users(
        self, user: str, groups: frozenset[str], groups_by_user: Mapping[str, frozenset[str]]
    ) -> frozenset[str] | None:
        """Return the users whose workflows a user may read; None: everybody's.

        Args:
            user: the reading user.
            groups: the groups of that user.
            groups_by_user: the known groups of all users.
        """
        if self.visibility is Visibility.ALL:
            return None
        shared = groups & self.groups if self.groups else groups
        if self.visibility is Visibility.OWN or not shared:
            return frozenset({user})
        return frozenset({user, *(other for other, theirs in groups_by_user.items() if theirs & shared)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """How a proxy passes on the user that it has authenticated.

    Args:
        user_header: lower-case name of the header with the user; b"": no proxy authenticates users.
        groups_header: of the header with the user's groups; b"": none.
        secret: what the proxy sends in `SECRET_HEADER`; "": requests must come through the Unix socket.
    """

    user_header: bytes = b""
    groups_header: bytes = b""
    secret: str = ""

    @classmethod
    def of(cls, user_header: str, groups_header: str, secret: str, *, has_socket: bool) -> Proxy:
        """Return the proxy of the settings.

        Args:
            user_header: name of the header with the user.
            groups_header: name of the header with the groups.
            secret: what the proxy proves itself with.
            has_socket: whether the server listens on a Unix socket.

        Raises:
            ConfigError: a name is invalid, or nothing would prove that a header comes from the proxy.
        """
        for key, name in (("proxy_header", user_header), ("proxy_groups_header", groups_header)):
            if name and _HEADER_NAME.fullmatch(name) is None:
                raise ConfigError(f"Setting auth.{key}: {name!r} is not the name of a header.")
        if user_header and not secret and not has_socket:
            raise ConfigError(
                "auth.proxy_header is trusted only with auth.proxy_secret, which the proxy sends as"
                f" {SECRET_HEADER.decode().title()}, or on server.socket: set one of them."
            )
        if user_header and secret and len(secret) < SECRET_CHARACTERS_MIN:
            raise ConfigError(f"auth.proxy_secret must have at least {SECRET_CHARACTERS_MIN} characters.")
        return cls(
            user_header=user_header.lower().encode(), groups_header=groups_header.lower().encode(), secret=secret
        )

    def user_of(self, headers: Mapping[bytes, bytes], *, is_local: bool) -> tuple[str, frozenset[str]] | None:
        """Return user and groups of a request; None: the proxy names no user.

        Args:
            headers: by lower-case name.
            is_local: whether the request came through the Unix socket.

        Raises:
            UntrustedProxy: it names a user, but it does not come from the proxy.
        """
        if not self.user_header or self.user_header not in headers:
            return None
        is_proven = is_same(headers.get(SECRET_HEADER, b""), self.secret.encode()) if self.secret else is_local
        if not is_proven:
            raise UntrustedProxy(
                f"{self.user_header.decode()}: only the proxy of this server may send this header. Use a personal token"
                " instead (jobmon login)."
            )
        user = headers[self.user_header].decode("utf-8", "replace").strip()
        if not user:
            return None
        if len(user) > NAME_CHARACTERS_MAX or not user.isprintable():
            raise UntrustedProxy(f"{self.user_header.decode()}: this is not the name of a user.")
        groups = headers.get(self.groups_header, b"").decode("utf-8", "replace") if self.groups_header else ""
        return user, frozenset(_words(groups))


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text) if word]
