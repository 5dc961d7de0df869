"""The state of all jobs of a server on a cluster: one distributor polls at a time and shares the result."""

from __future__ import annotations

from jobmon.core.wire import Message
from jobmon.core.wire.fields import BigCount, Moment, Name, Text


class WatchRequest(Message, frozen=True, kw_only=True):
    """POST /clusters/{name}/watch: a distributor requests a current view of the cluster. -> `WatchResponse`

    `holder`: the requesting distributor. `interval`: the age up to which a view is recent enough, seconds. `silence`:
    how long a distributor that was told to poll may stay silent before another one polls instead, seconds. `since`:
    include jobs that ended from then on, seconds since the epoch. `known`: number of the newest view that it has.
    `scope`: whose jobs it can see; views are shared only between distributors with the same scope.
    """

    holder: Name
    interval: float
    silence: float
    since: Moment
    known: BigCount = 0
    scope: Name = ""


class WatchResponse(Message, frozen=True, kw_only=True):
    """`look`: poll now, including jobs that ended from `since` on, and report the result. Otherwise `view`, if newer.

    `age`: how long ago the poll began that produced the view, seconds. `is_shared`: whether others need the view.
    `problem`: why the last poll produced no view; "" if it did.
    """

    look: bool = False
    since: float = 0.0
    number: int = 0
    view: str | None = None
    view_since: float = 0.0
    age: float = 0.0
    is_shared: bool = False
    problem: str = ""


class ViewRequest(Message, frozen=True, kw_only=True):
    """POST /clusters/{name}/view: the result of a poll, sent by the distributor that was told to poll.

    `view`: JSON, compressed by zlib, as base64; None if no other distributor needs it. `problem`: why there is none.
    `after`: the `number` of the response that requested the poll; None: not given. A view that arrives when there is a
    newer one is ignored.
    """

    holder: Name
    since: Moment
    view: Text | None = None
    problem: Text = ""
    scope: Name = ""
    after: BigCount | None = None


class ViewResponse(Message, frozen=True, kw_only=True):
    """The view's number."""

    number: int
