"""Tables of credentials: the keys that sign them, the personal tokens of a shared server, and its users' groups."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Table

from jobmon.server.models.types import BigId, Hash, Name, Time, metadata

#: A key of the server, by what it signs: "agent" or "link". Hexadecimal.
signing_key: Final = Table(
    "signing_key",
    metadata,
    Column("name", Name, primary_key=True),
    Column("key", Hash, nullable=False),
)

#: A personal token. The secret is not stored: `stored_key` and `server_key` (hexadecimal) only verify it.
personal_token: Final = Table(
    "personal_token",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("user_name", Name, nullable=False),
    Column("label", Name, nullable=False),
    Column("stored_key", Hash, nullable=False),
    Column("server_key", Hash, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time, nullable=False),
    Column("revoked_at", Time, nullable=True),
)

#: The groups of a user, as the newest login or the administrator named them. They hold for all tokens of the user.
user_group: Final = Table(
    "user_group",
    metadata,
    Column("user_name", Name, primary_key=True),
    Column("group_name", Name, primary_key=True),
    sqlite_with_rowid=False,
)
