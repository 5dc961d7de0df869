"""Delete workflows: on request, and automatically after `server.retention_days` without a change."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import number_of
from jobmon.core.wire.steering import PurgeRequest
from jobmon.server.constructs import select
from jobmon.server.models import workflow
from jobmon.server.sql import param, statement
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import SERVER
from jobmon.server.usecases import purging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Select

    from jobmon.core.clock import Clock
    from jobmon.server.database import Database
    from jobmon.server.readers import Readers
    from jobmon.server.sql import Session
    from jobmon.server.writer import Writer

INTERVAL_SECONDS: Final = 3_600.0
#: Clients find their server again before the first pass.
FIRST_SECONDS: Final = 60.0
#: Workflows that one query finds.
FOUND_MAX: Final = 100
DAY_MICROSECONDS: Final = 86_400 * 1_000_000

logger = logging.getLogger("jobmon.server")


@statement
def _unchanged() -> Select[Any]:
    w = workflow.c
    return (
        select(w.id)
        .where(w.status_at < param("unchanged_since"), w.id > param("after"))
        .order_by(w.id)
        .limit(param("most"))
    )


def _find_unchanged(session: Session, unchanged_since: int, after: int) -> list[int]:
    return session.column(_unchanged, unchanged_since=unchanged_since, after=after, most=FOUND_MAX)


async def delete_unused_nodes(database: Database, writer: Writer, first: int, last: int) -> None:
    """Delete the nodes of these IDs that no task uses, in short transactions."""
    async with database.nodes_indexed():
        after: int | None = first
        while after is not None:
            after = await writer.run_alone(purging.delete_unused_nodes, after, last)


async def purge(
    database: Database,
    writer: Writer,
    write: Callable[..., Awaitable[Any]],
    workflow_id: int,
    request: PurgeRequest,
) -> int:
    """Delete a workflow in short transactions; return the number of its tasks.

    Args:
        database: the database, for an index that only this needs.
        writer: runs what needs no transaction of a request.
        write: runs a use case on behalf of the principal.
        workflow_id: the workflow.
        request: who deletes it.

    Raises:
        InvalidRequest: it must not be deleted.
    """
    nodes = await write(purging.start_purge, workflow_id, request)
    count = 0
    while gone := await write(purging.purge_tasks, workflow_id):
        count += gone
    await write(purging.purge_rest, workflow_id, request)
    while await write(purging.purge_dags):
        pass
    if nodes is not None:
        await delete_unused_nodes(database, writer, *nodes)
    return count


class Retention:
    """Deletes old workflows. One that is running, or that must not be deleted for another reason, is kept.

    Args:
        database: the database.
        writer: runs the purges.
        readers: find old workflows.
        clock: the clock.
        days: how long a workflow is kept after its status changed last.
    """

    def __init__(self, database: Database, writer: Writer, readers: Readers, clock: Clock, days: float) -> None:
        self._database = database
        self._writer = writer
        self._readers = readers
        self._clock = clock
        self._days = days

    async def run(self) -> None:
        """Delete old workflows every hour, until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.do_pass()
            except Exception:
                logger.exception("old workflows could not be deleted; retrying in %g s", INTERVAL_SECONDS)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def do_pass(self) -> list[int]:
        """Delete all old workflows that may be deleted; return their IDs."""
        unchanged_since = to_microseconds(self._clock.now()) - round(self._days * DAY_MICROSECONDS)
        deleted, after = [], 0
        while found := await self._readers.run_large(_find_unchanged, unchanged_since, after):
            deleted += [workflow_id for workflow_id in found if await self._is_deleted(workflow_id)]
            after = found[-1]
        if deleted:
            logger.info("deleted %s unchanged for %g days", number_of(len(deleted), "workflow"), self._days)
        return deleted

    async def _is_deleted(self, workflow_id: int) -> bool:
        try:
            await purge(
                self._database, self._writer, self._writer.run, workflow_id, PurgeRequest(user=SERVER, any_owner=True)
            )
        except InvalidRequest as error:
            logger.debug("workflow %d is kept: %s", workflow_id, error)
            return False
        return True
