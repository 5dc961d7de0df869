"""Send notifications through Apprise. Nothing here can delay or fail a workflow.

The writer hands over what a committed transaction brought (`Notifier.note`). A task of the event loop reads what the
message says, and each receiver has its own thread and a bounded queue, so a receiver that does not respond delays only
its own messages. A message that cannot be delivered after `SEND_PAUSES_SECONDS` is dropped and logged; messages that
wait when the server is killed are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import ConfigError
from jobmon.core.installing import how_to_install
from jobmon.server.log_format import THREAD_NAME
from jobmon.server.notifications import EVENT_OF_RUN, Event, compose, place_of, url_for, without_secrets
from jobmon.server.queries import notifying
from jobmon.server.times import to_microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobmon.core.clock import Clock
    from jobmon.server.notifications import Message, Notifying
    from jobmon.server.readers import Readers
    from jobmon.server.transaction import Effects

    #: Sends a message to an address; returns "" or why it failed.
    Send = Callable[[str, Message], str]

#: Maximum number of events that wait to be composed, and of messages that wait for one receiver.
WAITING_MAX: Final = 1_000
#: Pauses between attempts to deliver a message.
SEND_PAUSES_SECONDS: Final = (1.0, 10.0, 60.0)
#: How long a server that exits waits for messages that are being sent.
STOP_SECONDS_MAX: Final = 5.0
STOP_LOOK_SECONDS: Final = 0.05
#: Runs that are remembered because their first failure, or their stall, was announced.
ANNOUNCED_MAX: Final = 10_000
#: How often to look for stalled runs, in parts of the time after which a run is stalled.
LOOKS_PER_STALL: Final = 4
_SENT: Final = "sent"
_FAILED: Final = "failed"
_DROPPED: Final = "dropped"

logger = logging.getLogger("jobmon.server")


class _Warnings(logging.Handler):
    """Collects what Apprise logs in this thread. It is shown without the parts of the address, and never logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message of this thread."""
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


def require_apprise() -> Any:
    """Return the library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import apprise
    except ImportError as error:
        raise ConfigError(f"Notifications need Apprise. Install it, {how_to_install('notify')}") from error
    return apprise


def send(url: str, message: Message) -> str:
    """Send a message; return "" or, without secrets, why it could not be sent."""
    apprise = require_apprise()
    from apprise.conversion import convert_between

    kinds = {None: apprise.NotifyType.INFO, Event.DONE: apprise.NotifyType.SUCCESS}
    kinds[Event.FAILED] = apprise.NotifyType.FAILURE
    kind = kinds.get(message.event, apprise.NotifyType.WARNING)
    sayings = _Warnings()
    log = logging.getLogger("apprise")
    log.addHandler(sayings)
    text = apprise.NotifyFormat.TEXT
    try:
        # not by `Apprise.notify`, which sends in threads of a pool that nothing stops
        sender = apprise.Apprise.instantiate(url, suppress_exceptions=False)
        if sender is None:
            return "it is not an address that Apprise knows"
        body = convert_between(text, sender.notify_format, content=message.body)  # type: ignore[no-untyped-call]
        is_sent = sender.notify(title=message.title, body=body, notify_type=kind, body_format=text)
    except Exception as error:
        return without_secrets(f"{type(error).__name__}: {error}", url)
    finally:
        log.removeHandler(sayings)
    if is_sent:
        return ""
    return without_secrets(sayings.texts[-1], url) if sayings.texts else "the service did not accept it"


def check(urls: Sequence[str]) -> list[str]:
    """Return what prevents notifications, without sending anything."""
    try:
        apprise = require_apprise()
    except ConfigError as error:
        return [str(error)]
    found = []
    for number, url in enumerate(urls):
        with contextlib.suppress(Exception):
            if apprise.Apprise.instantiate(url_for(url, "user") or url, suppress_exceptions=True) is not None:
                continue
        found.append(f"{place_of(number, url)} is not an address that Apprise knows.")
    return found


class Receiver:
    """One receiver, with its thread, which starts with the first message.

    Args:
        number: its position in the setting.
        url: its address, perhaps with a placeholder for the user.
        sending: sends a message.
        pauses: pauses between attempts, seconds.
    """

    def __init__(
        self, number: int, url: str, sending: Send = send, pauses: Sequence[float] = SEND_PAUSES_SECONDS
    ) -> None:
        self.place = place_of(number, url)
        self._url = url
        self._send = sending
        self._pauses = pauses
        self._queue: queue.Queue[Message] = queue.Queue(WAITING_MAX)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.counts: Counter[str] = Counter()

    @property
    def pending(self) -> int:
        """Number of messages that are waiting or being sent."""
        return self._queue.unfinished_tasks

    def put(self, message: Message) -> None:
        """Send a message soon; drop it if too many are waiting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self.counts[_DROPPED] += 1
            logger.warning("dropped a notification for %s: %d are waiting", self.place, WAITING_MAX)

    def stop(self) -> None:
        """Do not retry any more."""
        self._stopping.set()

    def _run(self) -> None:
        while True:
            message = self._queue.get()
            try:
                self._deliver(message)
            except Exception as error:  # such as a message of which a library makes something impossible
                self.counts[_FAILED] += 1
                logger.error("a notification for %s failed: %s", self.place, type(error).__name__)
            finally:
                self._queue.task_done()

    def _deliver(self, message: Message) -> None:
        url = url_for(self._url, message.user)
        if url is None:
            self.counts[_FAILED] += 1
            logger.warning("%s has no address for user %r", self.place, message.user)
            return
        for pause in (*self._pauses, None):
            reason = self._send(url, message)
            if not reason:
                self.counts[_SENT] += 1
                return
            if pause is None or self._stopping.wait(pause):
                break
        self.counts[_FAILED] += 1
        logger.warning("a notification could not be delivered to %s: %s", self.place, reason)


class Notifier:
    """Turns what happens into notifications.

    Args:
        settings: what to notify about.
        receivers: where to.
        readers: read what a message says.
        clock: the clock.
    """

    def __init__(self, settings: Notifying, receivers: Sequence[Receiver], readers: Readers, clock: Clock) -> None:
        self._settings = settings
        self._receivers = receivers
        self._readers = readers
        self._clock = clock
        self._events: deque[tuple[Event, int]] = deque()
        self._has_events = asyncio.Event()
        self._is_composing = False
        self._announced: OrderedDict[tuple[Event, int], int] = OrderedDict()
        self._dropped = 0

    @property
    def pending(self) -> int:
        """Number of events and messages that are not sent yet."""
        return len(self._events) + self._is_composing + sum(receiver.pending for receiver in self._receivers)

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages by outcome."""
        total: Counter[str] = Counter({_SENT: 0, _FAILED: 0, _DROPPED: self._dropped})
        for receiver in self._receivers:
            total.update(receiver.counts)
        return dict(total)

    def note(self, effects: Effects) -> None:
        """Queue notifications for the changes of a committed transaction."""
        for run_id, status in effects.ended_runs.items():
            event = EVENT_OF_RUN.get(status)
            if event is not None and event in self._settings.events:
                self._put(event, run_id)
        if Event.FIRST_FAILURE in self._settings.events:
            for workflow_id in effects.failing:
                self._put(Event.FIRST_FAILURE, workflow_id)

    def _put(self, event: Event, number: int) -> None:
        if len(self._events) >= WAITING_MAX:
            self._dropped += 1
            logger.warning("dropped a notification: %d events are waiting", WAITING_MAX)
            return
        self._events.append((event, number))
        self._has_events.set()

    async def run(self) -> None:
        """Compose messages until cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix=THREAD_NAME) as threads:
            wrong = await asyncio.get_running_loop().run_in_executor(threads, check, self._settings.urls)
        for sentence in wrong:
            logger.error("notifications: %s", sentence)
        stalled = asyncio.create_task(self._watch_for_stalls())
        try:
            while True:
                await self._has_events.wait()
                self._has_events.clear()
                while self._events:
                    event, number = self._events.popleft()
                    self._is_composing = True
                    try:
                        await self._compose(event, number)
                    except Exception as error:
                        logger.error("a notification about %s failed: %s", event, error)
                    finally:
                        self._is_composing = False
        finally:
            stalled.cancel()

    async def stop(self) -> None:
        """Wait a little for messages that are being sent."""
        for receiver in self._receivers:
            receiver.stop()
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while self.pending and time.monotonic() < deadline:  # noqa: ASYNC110 - the threads of receivers set no event
            await asyncio.sleep(STOP_LOOK_SECONDS)
        if self.pending:
            logger.warning("%d notifications were not sent before the exit", self.pending)

    async def _compose(self, event: Event, number: int) -> None:
        """Compose a message; `number`: the run, or the workflow with a failed task."""
        run_id: int | None = number
        if event is Event.FIRST_FAILURE:
            run_id = await self._readers.run(notifying.active_run, number)
            if run_id is None or not self._is_new(event, run_id):
                return
        run = await self._readers.run(notifying.run_summary, run_id, to_microseconds(self._clock.now()))
        if run is None or run.is_inner:
            return
        message = compose(event, run, self._settings.public_url)
        for receiver in self._receivers:
            receiver.put(message)

    def _is_new(self, event: Event, run_id: int, stamp: int = 0) -> bool:
        """Return whether this was not announced yet, and remember it."""
        if self._announced.get((event, run_id)) == stamp:
            return False
        self._announced[event, run_id] = stamp
        if len(self._announced) > ANNOUNCED_MAX:
            self._announced.popitem(last=False)
        return True

    async def _watch_for_stalls(self) -> None:
        seconds = self._settings.stalled_seconds
        while seconds > 0 and Event.STALLED in self._settings.events:
            await asyncio.sleep(seconds / LOOKS_PER_STALL)
            now = to_microseconds(self._clock.now())
            try:
                found = await self._readers.run_large(notifying.stalled_runs, now, now - round(seconds * 1e6))
            except Exception as error:
                logger.error("the search for stalled runs failed: %s", error)
                continue
            for run_id, stamp in found:
                if self._is_new(Event.STALLED, run_id, stamp):
                    self._put(Event.STALLED, run_id)


def open_notifier(settings: Notifying, readers: Readers, clock: Clock) -> Notifier | None:
    """Return the notifier, or None if there is nobody to notify."""
    if not settings.urls:
        return None
    return Notifier(settings, [Receiver(*one) for one in enumerate(settings.urls)], readers, clock)
