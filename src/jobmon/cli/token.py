"""`jobmon token`: personal tokens of a shared server, so that it knows who sends a request."""

from __future__ import annotations

import click

from jobmon.cli.groups import Group
from jobmon.cli.references import Number
from jobmon.cli.rendering import OUTPUT
from jobmon.core.credentials import LINK_DAYS_MAX, TOKEN_DAYS


@click.group(cls=Group)
def token() -> None:
    """Personal tokens of a shared server: create, list, revoke.

    Your local server needs none. To replace a token, create a second one, use it, then revoke the first.
    """


@token.command(epilog="Example: jobmon token create --user ada --label laptop")
@click.option(
    "--user",
    default="",
    help="User of the token. Default: you. Creating one for another user requires administrator rights.",
)
@click.option("--label", default="", help="Purpose of the token, such as the name of a machine.")
@click.option(
    "--days",
    type=Number(0, LINK_DAYS_MAX, min_open=True),
    default=TOKEN_DAYS,
    show_default=True,
    help="How long it is valid, days.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="Group of the user from now on, for all tokens of the user; may be repeated. Default: the known groups."
    " Requires administrator rights.",
)
@OUTPUT
def create(user: str, label: str, days: float, groups: tuple[str, ...], output: str) -> None:
    """Create a token and print it. It is not stored, so it cannot be shown again."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.credentials import TokenRequest, TokenResponse

    named = [group.removeprefix("@") for group in groups]
    request = TokenRequest(user=user, label=label, days=days, groups=named or None)
    created = Requester.from_defaults().call("/tokens", request, TokenResponse)
    if output == "json":
        rendering.show_json(created)
        return
    click.echo(created.secret)
    until = rendering.local_time(created.token.expires_at)
    click.echo(f"Token {created.token.id} of {created.token.user}, valid until {until}.", err=True)
    click.echo("Use it with: jobmon login ADDRESS", err=True)


@token.command("list", epilog="Example: jobmon token list")
@OUTPUT
def list_(output: str) -> None:
    """Show your tokens, without their secrets; administrators see all."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.credentials import TokensResponse

    found = Requester.from_defaults().call("/tokens", None, TokensResponse, "get").tokens
    if output == "json":
        rendering.show_json(found)
        return
    rows = [
        (
            str(one.id),
            one.user,
            ", ".join(one.groups) or "-",
            one.label or "-",
            rendering.local_time(one.created_at),
            rendering.local_time(one.expires_at),
            "-" if one.revoked_at is None else rendering.local_time(one.revoked_at),
        )
        for one in found
    ]
    rendering.show_table(("ID", "USER", "GROUPS", "LABEL", "CREATED", "EXPIRES", "REVOKED"), rows)


@token.command(epilog="Example: jobmon token revoke 3")
@click.argument("token_id", type=click.IntRange(1))
def revoke(token_id: int) -> None:
    """Revoke a token immediately. Programs that use it wait, rereading the settings, until they find another one."""
    from jobmon.core.requester import Requester

    Requester.from_defaults().call(f"/tokens/{token_id}", None, dict, "delete")
    click.echo(f"Token {token_id} is revoked.", err=True)
