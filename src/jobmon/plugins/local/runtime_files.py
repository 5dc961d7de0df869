"""Keep a running supervisor's files where distributors look for them.

Socket, lock and journal are in a runtime folder that a logout or a cleanup job may remove. The supervisor checks them
periodically and recreates them, in another folder if theirs cannot be recreated. Until then, a socket in the kernel's
abstract namespace shows that it is running: that socket cannot be removed with a file.

Besides `jobmon.agent` it imports only the standard library, see `supervisor.py`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

from jobmon.agent import trust

#: How often the files are checked, and thus how long a supervisor may be hard to find.
LOOK_SECONDS = 2.0
#: A running supervisor has recreated its files after this time.
PRESENT_SECONDS_MAX = 3 * LOOK_SECONDS
_CONNECT_SECONDS = 1.0
_BACKLOG = 64
_CREDENTIALS = struct.Struct("3i")  # pid, user, group
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def presence_name(socket_path: str) -> str:
    """Return the abstract name of the supervisor with this socket; it does not depend on the folder."""
    return f"\0jobmon-{os.getuid()}-{os.path.basename(socket_path)}"


def is_present(socket_path: str) -> bool:
    """Return whether a supervisor of this user is running, even without its files. Always False except on Linux."""
    if not sys.platform.startswith("linux"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_CONNECT_SECONDS)
        try:
            line.connect(presence_name(socket_path))
        except OSError:
            return False
        credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(credentials)[1] == os.getuid())  # any user may have taken the name first


class RuntimeFiles:
    """Manage the socket, journal and lock of one supervisor.

    Args:
        paths: paths of socket, journal and lock.
        lock: descriptor of the lock, which is held.
        elsewhere: folder to use if the original one cannot be recreated; "": none.
        now: monotonic time, seconds.
    """

    def __init__(self, paths: Sequence[str], lock: int, elsewhere: str, now: float) -> None:
        self.socket, self.journal, self.lock = paths
        self.look_at = now + LOOK_SECONDS
        #: Another supervisor took the lock in the meantime: the files belong to it.
        self.is_displaced = False
        self._elsewhere = elsewhere
        self._lock = lock
        self._socket_identity = _identity(self.socket)
        #: The socket that shows that this supervisor is running; None if unsupported.
        self.presence = self._be_present()

    def _be_present(self) -> socket.socket | None:
        if not sys.platform.startswith("linux"):
            return None
        presence = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            presence.bind(presence_name(self.socket))
            presence.listen(_BACKLOG)
        except OSError:  # the name is taken: then only the files show that this supervisor is running
            presence.close()
            return None
        presence.setblocking(False)
        return presence

    def greet(self) -> None:
        """Close the connections of processes that check whether this supervisor is running."""
        try:
            while self.presence is not None:
                self.presence.accept()[0].close()
        except OSError:
            return

    def are_due(self, now: float) -> bool:
        """Return whether the files must be checked now; if so, the next check is `LOOK_SECONDS` later."""
        if now < self.look_at:
            return False
        self.look_at = now + LOOK_SECONDS
        return not self.is_displaced

    def are_there(self) -> bool:
        """Return whether all three files are our own."""
        return (
            _identity(self.socket) == self._socket_identity
            and _identity(self.lock) == _identity_of(os.fstat(self._lock))
            and os.path.exists(self.journal)
        )

    def take_back(self) -> bool:
        """Recreate folder and lock; return whether to recreate socket and journal. False: displaced.

        Raises:
            OSError: no folder is available now.
        """
        self._make_folder()
        if _identity(self.lock) == _identity_of(os.fstat(self._lock)):
            return True
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            self.is_displaced = True
            return False
        os.close(self._lock)
        self._lock = descriptor
        return True

    def note_socket(self) -> None:
        """Record the identity of the recreated socket."""
        self._socket_identity = _identity(self.socket)

    def _make_folder(self) -> None:
        try:
            folder = os.path.dirname(self.socket)
            os.stat(os.path.dirname(folder))  # only the system creates a login's folder
            trust.private_folder(folder)
        except OSError:
            if not self._elsewhere or self._elsewhere == os.path.dirname(self.socket):
                raise
            trust.private_folder(self._elsewhere)
            names = (os.path.basename(path) for path in (self.socket, self.journal, self.lock))
            self.socket, self.journal, self.lock = (os.path.join(self._elsewhere, name) for name in names)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        return _identity_of(os.lstat(path))
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
