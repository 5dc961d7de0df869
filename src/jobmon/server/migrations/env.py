"""What Alembic runs: the migrations on the engine that `upgrading` hands over, in one transaction."""

from alembic import context

from jobmon.server.migrations.upgrading import VERSION_TABLE
from jobmon.server.models import metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
