"""A backup that is made while the server is in use can be restored, and its workflows resumed."""

from __future__ import annotations

import subprocess

from click.testing import CliRunner
from server_world import RUN, TI, open_world, report
from tests.databases import SQLITE, current

from jobmon.cli.main import main


def back_up(uri, folder):
    """Back up as `docs/howto/shared-server.md` says."""
    if current().dialect == SQLITE:
        environment = {"JOBMON__DB__SQLALCHEMY_DATABASE_URI": uri}
        done = CliRunner(env=environment).invoke(main, ["db", "backup", str(folder / "backup")])
        assert done.exit_code == 0, done.output
    else:
        subprocess.run(["pg_dump", "--format=custom", f"--file={folder / 'backup'}", uri], check=True)


def restore(folder, place):
    """Restore into an empty database of a folder as the page says."""
    place.mkdir()
    uri = current().uri(place, empty=True)
    if current().dialect == SQLITE:
        (place / "jobmon.sqlite").write_bytes((folder / "backup").read_bytes())
    else:
        subprocess.run(["pg_restore", f"--dbname={uri}", "--no-owner", str(folder / "backup")], check=True)


async def test_what_was_backed_up_is_restored_and_runs_on(tmp_path):
    async with open_world(tmp_path) as world:
        bound = await world.bound(3)
        run = await bound.start()
        await run.register()
        await run.queue()
        first, *others = (await run.launched()).task_instance_ids
        await run.sync(report(first, TI.RUNNING), report(first, TI.DONE))
        before = world.rows("SELECT id, status, attempt_count FROM task ORDER BY id")
        identity = world.rows("SELECT word FROM server_identity")
        back_up(world.database_uri, tmp_path)
        await run.sync(*(report(one, TI.RUNNING) for one in others), *(report(one, TI.DONE) for one in others))
        await run.move(RUN.DONE)
    restore(tmp_path, tmp_path / "restored")
    async with open_world(tmp_path / "restored") as world:
        assert world.rows("SELECT id, status, attempt_count FROM task ORDER BY id") == before
        assert world.rows("SELECT word FROM server_identity") == identity
        bound.world = run.bound.world = world
        await run.sync(*(report(one, TI.RUNNING) for one in others), *(report(one, TI.DONE) for one in others))
        await run.move(RUN.DONE)
        assert set((await bound.statuses()).values()) == {"D"}


def test_a_backup_that_is_not_possible_is_explained(tmp_path):
    def backup(uri, file):
        done = CliRunner(env={"JOBMON__DB__SQLALCHEMY_DATABASE_URI": uri}).invoke(main, ["db", "backup", str(file)])
        assert done.exit_code != 0
        return str(done.output) + str(done.exception)

    there = tmp_path / "there.sqlite"
    there.write_bytes(b"")
    uri = "postgresql://jobmon:hidden@127.0.0.1/jobmon"
    assert "pg_dump --format=custom" in backup(uri, tmp_path / "copy")
    assert "hidden" not in backup(uri, tmp_path / "copy")
    assert "There is no database at" in backup(f"sqlite:///{tmp_path}/missing", tmp_path / "copy")
    assert "FILE is the database itself" in backup(f"sqlite:///{there}", there)
    assert "cannot be copied" in backup(f"sqlite:///{there}", tmp_path / "missing" / "copy")
