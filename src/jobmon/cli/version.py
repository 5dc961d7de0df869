"""`jobmon version`: show the version."""

from __future__ import annotations

import click


@click.command(epilog="Example: jobmon version --components")
@click.option("--components", is_flag=True, help="Also show plug-ins, the server, Python and libraries.")
def version(components: bool) -> None:
    """Show the version."""
    from importlib import metadata

    click.echo(f"jobmon {metadata.version('jobmon')}")
    if components:
        import platform

        from jobmon.core.access import find_server
        from jobmon.core.cluster import plugin_names
        from jobmon.core.exceptions import JobmonError

        try:
            running = find_server()
        except JobmonError:  # the server runs on another host
            running = None
        click.echo(f"server {running.version if running is not None else '- (none is running here)'}")
        click.echo(f"plug-ins {', '.join(plugin_names())}")
        click.echo(f"python {platform.python_version()}")
        for name in ("aiohttp", "alembic", "click", "msgspec", "rich", "SQLAlchemy", "starlette", "uvicorn"):
            click.echo(f"{name} {metadata.version(name)}")
