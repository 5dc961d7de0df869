"""Which variables a command inherits from the program that runs it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variables that commands must not see.
SECRETS = frozenset({"JOBMON_TOKEN", "JOBMON__HTTP__TOKEN", "JOBMON__AUTH__PROXY_SECRET", "JOBMON__NOTIFY__URLS"})
#: Prefix of the settings of one call of `run()`, which must not apply to a workflow that a command runs itself.
RUN_SETTINGS = "JOBMON__RUN__"


def for_command(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a command inherits."""
    return {
        name: value for name, value in environment.items() if name not in SECRETS and not name.startswith(RUN_SETTINGS)
    }
