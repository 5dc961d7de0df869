"""Old workflows are deleted by the server itself, and nothing else is."""

from __future__ import annotations

from server_world import open_world
from test_purging import ended

from jobmon.core.wire.swarm import WorkflowMetadata
from jobmon.server.retention import FOUND_MAX, Retention


async def test_only_what_is_old_and_over_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("jobmon.server.retention.FOUND_MAX", 1)  # several pages
    async with open_world(tmp_path) as world:
        services = world.app.state.services
        retention = Retention(services.database, services.writer, services.readers, world.clock, 30)
        old = [(await ended(world)).workflow_id for _ in range(3)]
        under_way = await world.bound(1)
        await under_way.start()
        world.clock.seconds += 31 * 86_400
        young = await ended(world)
        assert await retention.do_pass() == old
        for kept in (under_way, young):
            await world.get(f"/workflows/{kept.workflow_id}/metadata", WorkflowMetadata)
        assert await retention.do_pass() == []
        assert {row[0] for row in world.rows("SELECT principal FROM audit WHERE action = 'purge'")} == {"server"}
        world.clock.seconds += 31 * 86_400
        deleted = await retention.do_pass()
        assert under_way.workflow_id not in deleted, "its run has not been closed"
    assert FOUND_MAX > 1
