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

        from jobmon.core.cluster import plugin_names

        click.echo(f"server {_version_of_server()}")
        click.echo(f"plug-ins {', '.join(plugin_names())}")
        click.echo(f"python {platform.python_version()}")
        for name in ("aiohttp", "alembic", "click", "msgspec", "rich", "SQLAlchemy", "starlette", "uvicorn"):
            click.echo(f"{name} {metadata.version(name)}")


def _version_of_server() -> str:
    from jobmon.cli.lookups import about, shared_server
    from jobmon.core.access import find_server
    from jobmon.core.exceptions import JobmonError

    shared = shared_server()
    try:
        if shared is not None:
            health, _ = about(shared)
            return f"{health.version} at {shared.url}"
        running = find_server()
    except JobmonError:  # it does not respond, or your local server runs on another host
        running = None
    if running is not None:
        return running.version
    return "- (none is running here)" if shared is None else f"- ({shared.url} does not respond)"
