"""The tables. `metadata` knows them all; `types.py` says how times and ids are stored.

Only SQLAlchemy; used for creating and comparing the schema. Statements on the hot path are written as SQL.
"""

from jobmon.server.models import binding, definition, run
from jobmon.server.models.types import Base

metadata = Base.metadata

__all__ = ["Base", "binding", "definition", "metadata", "run"]
