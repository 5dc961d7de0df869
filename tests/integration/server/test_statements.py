"""Compile every statement of the server for both databases, and check that all of its tables are joined."""

import importlib
import pkgutil

import pytest
from sqlalchemy.sql.compiler import COLLECT_CARTESIAN_PRODUCTS

import jobmon.server
from jobmon.server import elements, texts
from jobmon.server.elements import DIALECTS
from jobmon.server.recording import digest
from jobmon.server.sql import Statement


def modules():
    for found in pkgutil.walk_packages(jobmon.server.__path__, "jobmon.server."):
        if ".migrations." not in found.name and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


STATEMENTS = {
    f"{module.__name__.removeprefix('jobmon.server.')}.{name}": value
    for module in modules()
    for name, value in vars(module).items()
    if isinstance(value, Statement)
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_compiled_for_both_databases_with_all_that_it_reads_joined(name):
    statement = STATEMENTS[name]
    for dialect, written in DIALECTS.items():
        assert statement.compiled(dialect).text
        compiled = statement.construct().compile(dialect=written, linting=COLLECT_CARTESIAN_PRODUCTS)
        unjoined, _ = compiled.from_linter.lint() if hasattr(compiled, "from_linter") else (None, None)
        assert not unjoined, [table.name for table in unjoined]


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_text_that_was_generated_in_advance_is_that_of_sqlalchemy(name):
    statement = STATEMENTS[name]
    key = digest(statement.build(), statement.names)
    assert key is not None
    assert texts.known("sqlite")[key] == elements.compiled(statement.construct(), "sqlite", statement.names)


def test_there_are_statements():
    assert len(STATEMENTS) > 200
