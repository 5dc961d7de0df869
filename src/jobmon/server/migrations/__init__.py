"""The schema's history. `upgrade` brings any database to the newest version; Alembic's files are next to it.

A new database gets the models' tables directly (a test compares both ways), an SQLite database from their text, so that
SQLAlchemy need not be loaded; Alembic is imported only for an old one.
"""

from jobmon.server.migrations.upgrading import HEAD, VERSION_TABLE, ensure, ensure_from_texts, upgrade

__all__ = ["HEAD", "VERSION_TABLE", "ensure", "ensure_from_texts", "upgrade"]
