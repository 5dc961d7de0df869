"""`jobmon version`."""

from __future__ import annotations

import click


@click.command()
@click.option("--components", is_flag=True, help="Also Python and the libraries that Jobmon stands on.")
def version(components: bool) -> None:
    """Print the version."""
    from importlib import metadata

    click.echo(f"jobmon {metadata.version('jobmon')}")
    if components:
        import platform

        click.echo(f"python {platform.python_version()}")
        for name in ("aiohttp", "alembic", "click", "fastapi", "msgspec", "rich", "SQLAlchemy", "uvicorn"):
            click.echo(f"{name} {metadata.version(name)}")
