"""How all jobs of a server stand on a cluster: one distributor looks at a time, and says it to the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """POST /clusters/{name}/watch: a distributor wants to know how things stand there. -> `WatchResponse`

    `holder`: who asks. A view of the age `interval` is new enough for it; `silence`: when it was told to look and says
    nothing for so long, another may look instead; `since`: it wants endings from then on, seconds since the epoch;
    `known`: number of the newest view that it has. `scope`: whose jobs it can see; only who says the same shares views.
    """

    holder: str
    interval: float
    silence: float
    since: float
    known: int = 0
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResponse:
    """`look`: do so now, with endings from `since` on, and say what came of it. Else `view`, if it is a newer one.

    `age`: how long ago the look began that brought the view, seconds. `is_shared`: others want to see the view.
    `problem`: why the last look brought nothing; "" when it did.
    """

    look: bool = False
    since: float = 0.0
    number: int = 0
    view: str | None = None
    view_since: float = 0.0
    age: float = 0.0
    is_shared: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRequest:
    """POST /clusters/{name}/view: what a look brought, by whom that was told to look.

    `view`: JSON, packed by zlib, as base64; None where nobody else wants it. `problem`: why there is none. `after`: the
    `number` of the answer that said to look; None: not said. What comes when there is a newer view is not taken.
    """

    holder: str
    since: float
    view: str | None = None
    problem: str = ""
    scope: str = ""
    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewResponse:
    """The view's number."""

    number: int
