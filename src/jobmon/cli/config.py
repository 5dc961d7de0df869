"""`jobmon config`: show and change settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobmon.cli.groups import Group

if TYPE_CHECKING:
    from jobmon.core.configuration import JobmonConfig


@click.group(cls=Group)
def config() -> None:
    """Show and change settings."""


@config.command(epilog="Example: jobmon config show --section http")
@click.option("--section", help="Show only this section.")
@click.option("--key", help="Show only this key; needs --section.")
@click.option("--origins", is_flag=True, help="Also show the source of each setting in JSON.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def show(section: str | None, key: str | None, origins: bool, output: str) -> None:
    """Show all settings, and where each comes from: a file, the environment, or the default."""
    from jobmon.cli import rendering
    from jobmon.core.configuration import SETTINGS, JobmonConfig

    if key and not section:
        raise click.UsageError("--key needs --section.")
    settings = JobmonConfig()
    if section and key:
        shown = {section: {key: settings.origin(section, key)[0]}}
    else:
        shown = {name: settings.get_section(name) for name in ([section] if section else SETTINGS)}
    for name in {key for entries in SETTINGS.values() for key, setting in entries.items() if setting.is_secret}:
        rendering.hide_secret(shown, name)
    if output == "yaml":
        click.echo(_as_yaml(settings, shown), nl=False)
    elif origins:
        rendering.show_json(_with_origins(settings, shown))
    else:
        rendering.show_json(shown)


def _with_origins(settings: JobmonConfig, shown: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        section: {key: {"value": value, "origin": settings.origin(section, key)[1]} for key, value in entries.items()}
        for section, entries in shown.items()
    }


def _as_yaml(settings: JobmonConfig, shown: dict[str, dict[str, Any]]) -> str:
    """Return the settings as YAML, each followed by a comment."""
    import yaml

    lines = []
    for section, entries in shown.items():
        lines.append(f"{section}:")
        for key, value in entries.items():
            first, *others = yaml.safe_dump({key: value}, allow_unicode=True, width=10_000).rstrip().splitlines()
            lines += [f"  {first}  # {settings.origin(section, key)[1]}", *(f"  {other}" for other in others)]
    return "\n".join(lines) + "\n"


@config.command("set", epilog="Example: jobmon config set http.request_timeout 30")
@click.argument("key")
@click.argument("value")
@click.option(
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file. Default: the file in use.",
)
def set_(key: str, value: str, config_file: Path | None) -> None:
    """Write a setting, such as http.request_timeout, to the configuration file (by default ~/.jobmon.yaml)."""
    import os

    from jobmon.agent import trust
    from jobmon.cli.formatting import NotWritable
    from jobmon.core import paths
    from jobmon.core.configuration import JobmonConfig, environment_variable

    section, _, name = key.partition(".")
    if not name:
        raise click.UsageError("KEY must be SECTION.KEY, such as http.request_timeout.")
    typed = _typed(section, name, value)
    if config_file is not None:
        try:
            with paths.trusting():
                if not config_file.exists():  # it starts empty, not as a copy of the file in use
                    trust.make_private_file(trust.resolved(str(config_file)))
        except OSError as error:
            raise NotWritable(config_file, error) from None
    settings = JobmonConfig(config_file or "")
    settings.set(section, name, typed)
    path = settings.write()
    click.echo(f"Wrote {path}")
    variable = environment_variable(section, name)
    if variable in os.environ:
        click.echo(f"It has no effect now: {variable} in the environment takes precedence.", err=True)


def _typed(section: str, key: str, value: str) -> Any:
    """Convert the value to the type of the setting: a number, a boolean, or text.

    Raises:
        ConfigError: the setting does not exist.
        click.BadParameter: the value is invalid.
    """
    from jobmon.core.configuration import setting_of

    values = setting_of(section, key).values
    try:
        parsed = values.parse(value)
    except (ValueError, TypeError, OverflowError):
        raise click.BadParameter(f"{section}.{key} must be {values.wanted}.", param_hint="VALUE") from None
    if isinstance(parsed, float) and parsed.is_integer():
        return int(parsed)
    return parsed if isinstance(parsed, int | float) else value
