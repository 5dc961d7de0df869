"""`jobmon config`: settings."""

from __future__ import annotations

import click


@click.group()
def config() -> None:
    """Settings: what is in force and where it comes from."""


@config.command()
@click.option("--section", help="Only this section.")
@click.option("--key", help="Only this key; needs --section.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def show(section: str | None, key: str | None, output: str) -> None:
    """Show the settings in force."""
    from jobmon.cli import rendering
    from jobmon.core.configuration import SETTINGS, JobmonConfig

    if key and not section:
        raise click.UsageError("--key needs --section.")
    settings = JobmonConfig()
    if section and key:
        shown = {section: {key: settings.get(section, key)}}
    else:
        shown = {name: settings.get_section(name) for name in ([section] if section else SETTINGS)}
    for name in ("token", "sqlalchemy_database_uri"):
        rendering.hide_secret(shown, name)
    if output == "json":
        rendering.show_json(shown)
    else:
        import yaml

        click.echo(yaml.safe_dump(shown, sort_keys=False), nl=False)
