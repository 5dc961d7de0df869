"""Run the migrations for Alembic on the engine that `upgrading` passes, in one transaction."""

from alembic import context

from jobmon.server.migrations.upgrading import VERSION_TABLE, only_of
from jobmon.server.models.tables import metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # its driver begins no transaction for DDL statements
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
        include_object=only_of(connection.dialect.name),
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
