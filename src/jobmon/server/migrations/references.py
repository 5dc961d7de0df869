"""Triggers by which PostgreSQL checks references once per statement, instead of by foreign keys once per row.

They refuse what a foreign key refuses, with the same SQLSTATE and the same locks: see decision 53.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A table -> a column -> the table whose ID it contains.
References = dict[str, dict[str, str]]

_VIOLATED = "RAISE foreign_key_violation USING MESSAGE = "
#: Checks rows that were added. The lock lets nobody delete what they refer to before this transaction ends.
_CHECK_ADDED = """
    SELECT array_agg(DISTINCT {column}) FILTER (WHERE {column} IS NOT NULL) INTO wanted FROM added;
    PERFORM FROM {parent} WHERE id = ANY (wanted) FOR KEY SHARE;
    GET DIAGNOSTICS found = ROW_COUNT;
    IF found < cardinality(wanted) THEN
        {violated}'{table}.{column} refers to a row of {parent} that does not exist';
    END IF;
"""
_ADDED = """
CREATE FUNCTION check_added_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint[];
    found bigint;
BEGIN{checks}
    RETURN NULL;
END $$
"""
_ADDED_TRIGGER = """
CREATE TRIGGER check_added AFTER INSERT ON {table} REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION check_added_{table}()
"""
_CHANGED = """
CREATE FUNCTION check_changed_{table}_{column}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {parent} WHERE id = NEW.{column} FOR KEY SHARE;
    IF NOT FOUND THEN
        {violated}'{table}.{column} refers to a row of {parent} that does not exist';
    END IF;
    RETURN NULL;
END $$
"""
_CHANGED_TRIGGER = """
CREATE TRIGGER check_changed_{column} AFTER UPDATE OF {column} ON {table} FOR EACH ROW
WHEN (NEW.{column} IS NOT NULL AND OLD.{column} IS DISTINCT FROM NEW.{column})
EXECUTE FUNCTION check_changed_{table}_{column}()
"""
_CHECK_GONE = """
    IF EXISTS (SELECT FROM gone JOIN {table} AS other ON other.{column} = gone.id) THEN
        {violated}'rows of {table} still refer to a row of {parent}';
    END IF;
"""
_GONE = """
CREATE FUNCTION check_gone_{parent}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN{checks}
    RETURN NULL;
END $$
"""
_GONE_TRIGGER = """
CREATE TRIGGER check_gone AFTER DELETE ON {parent} REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION check_gone_{parent}()
"""
_RENUMBERED = """
CREATE FUNCTION refuse_other_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING MESSAGE = 'IDs never change';
END $$
"""
_RENUMBERED_TRIGGER = """
CREATE TRIGGER check_renumbered AFTER UPDATE OF id ON {parent} FOR EACH ROW
WHEN (OLD.id IS DISTINCT FROM NEW.id) EXECUTE FUNCTION refuse_other_id()
"""


def of_models() -> References:
    """Return the references of the models that triggers check."""
    from jobmon.server.models.tables import metadata
    from jobmon.server.models.types import DIALECT

    found: References = {}
    for table in metadata.sorted_tables:
        for key in sorted(table.foreign_keys, key=lambda key: str(key.parent.name)):
            if key.info.get(DIALECT):
                found.setdefault(table.name, {})[key.parent.name] = key.column.table.name
    return found


def creation(references: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Return the statements that create the triggers."""
    for table, columns in references.items():
        names = [{"table": table, "column": column, "parent": columns[column]} for column in sorted(columns)]
        checks = "".join(_CHECK_ADDED.format(**one, violated=_VIOLATED) for one in names)
        yield _ADDED.format(table=table, checks=checks)
        yield _ADDED_TRIGGER.format(table=table)
        for one in names:
            yield _CHANGED.format(**one, violated=_VIOLATED)
            yield _CHANGED_TRIGGER.format(**one)
    yield _RENUMBERED
    for parent in _parents(references):
        checks = "".join(
            _CHECK_GONE.format(table=table, column=column, parent=parent, violated=_VIOLATED)
            for table, columns in sorted(references.items())
            for column in sorted(columns)
            if columns[column] == parent
        )
        yield _GONE.format(parent=parent, checks=checks)
        yield _GONE_TRIGGER.format(parent=parent)
        yield _RENUMBERED_TRIGGER.format(parent=parent)


def removal(references: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Return the statements that remove the triggers."""
    for parent in _parents(references):
        yield f"DROP TRIGGER check_renumbered ON {parent}"
        yield f"DROP TRIGGER check_gone ON {parent}"
        yield f"DROP FUNCTION check_gone_{parent}()"
    yield "DROP FUNCTION refuse_other_id()"
    for table, columns in references.items():
        for column in columns:
            yield f"DROP TRIGGER check_changed_{column} ON {table}"
            yield f"DROP FUNCTION check_changed_{table}_{column}()"
        yield f"DROP TRIGGER check_added ON {table}"
        yield f"DROP FUNCTION check_added_{table}()"


def _parents(references: Mapping[str, Mapping[str, str]]) -> list[str]:
    return sorted({parent for columns in references.values() for parent in columns.values()})
