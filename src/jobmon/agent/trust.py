"""Check that no other user could have planted a file or folder before it is read, followed or changed.

A folder is trusted if it belongs to us or root, no other user may write to it, and the same is true of all its parents
(others may write to a sticky parent such as /tmp). A symbolic link is trusted only if it belongs to us or root and is
in a folder to which no other user may write. The server, clients, commands and workers all use this module.

Imports only modules that workers load anyway (`python -I -S`).
"""

from __future__ import annotations

import errno
import os
import stat

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
#: Maximum number of links followed, the same as in the kernel.
LINKS_MAX = 40
#: Maximum size of our files that are read as a whole, such as access files and settings.
FILE_BYTES_MAX = 1024 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_ROOT = 0
#: Links below it, to which /dev/stdout leads, stand for open files.
_PROCESSES = "/proc/"
#: Extended attribute in which Linux stores access control lists: a header, then entries of kind, rights, user or group.
_ACCESS_LIST = "system.posix_acl_access"
_LIST_HEAD, _LIST_ENTRY = 4, 8
_NAMED_USER, _NAMED_GROUP = 2, 8
_MAY_WRITE = 2
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Untrusted(PermissionError):
    """Another user could have planted this path; the message names the path, the problem and the remedy."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(errno.EPERM, f"{path} {problem}. {remedy}", path)

    def __str__(self) -> str:
        return str(self.strerror)


def resolved(path: str) -> str:
    """Return the real path of a file or folder after checking every folder and link that leads to it.

    The last component is checked if it is a folder. Missing components are allowed, and nothing is created.

    Raises:
        Untrusted: a folder or link on the path is not trusted.
        OSError: the path cannot be followed.
    """
    _require_folder(os.lstat("/"), "/")

    def check(found: os.stat_result, there: str, _: str) -> bool:
        if stat.S_ISDIR(found.st_mode):
            _require_folder(found, there)
        is_link = stat.S_ISLNK(found.st_mode)
        if is_link:
            _require_link(found, there)
        return is_link

    return _walked(path, check)


def _walked(path: str, check: Callable[[os.stat_result, str, str], bool]) -> str:
    """Return the path that remains after following links; missing components are allowed.

    Args:
        path: path of a file or folder.
        check: called with each component, its path, and the path of its folder; returns whether to follow it as a link.

    Raises:
        OSError: the path leads through too many links, or cannot be followed.
    """
    waiting = os.path.join(os.getcwd(), path).split("/")[::-1]
    here, links = "/", 0
    while waiting:
        name = waiting.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        there = os.path.join(here, name)
        try:
            found = os.lstat(there)
        except FileNotFoundError:
            return os.path.normpath(os.path.join(there, *waiting[::-1]))
        if not check(found, there, here):
            here = there
            continue
        links += 1
        if links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(there)
        here = "/" if target.startswith("/") else here
        waiting += target.split("/")[::-1]
    return here


def private_folder(path: str) -> str:
    """Create a folder and its missing parents with mode 0700, or check that an existing folder is ours alone.

    Read permissions of others on an existing folder are removed. A folder that others may write to is rejected, because
    they may have done so.

    Returns:
        The real path.

    Raises:
        Untrusted: the folder or its parents are not trusted, or it is not ours.
        OSError: the folder cannot be created or entered.
    """
    real = resolved(path)
    if make_folders(real):
        real = resolved(real)  # others may have created one of them first
    folder = os.open(real, _ENTER)
    try:
        found = os.fstat(folder)
        require_private(found, real)
        if found.st_mode & _OTHERS:
            os.fchmod(folder, PRIVATE_FOLDER_MODE)
    finally:
        os.close(folder)
    return real


def require_private(found: os.stat_result, path: str) -> None:
    """Reject an open folder that is not ours, or to which others may write.

    Args:
        found: the status of the open folder.
        path: path of the folder, for the error message.

    Raises:
        Untrusted: the folder is not ours alone.
    """
    _require_folder(found, path, is_parent=False)
    if found.st_uid != os.geteuid():
        raise Untrusted(path, f"belongs to another user ({_name(found.st_uid)})", "Choose a folder that you own")


def make_folders(path: str) -> bool:
    """Create a folder and its missing parents with mode 0700, regardless of the umask; return whether any was missing.

    Raises:
        OSError: a folder cannot be created.
    """
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        try:
            os.mkdir(folder, PRIVATE_FOLDER_MODE)
        except FileExistsError:
            continue  # created concurrently; it is checked when it is entered
        os.chmod(folder, PRIVATE_FOLDER_MODE)  # an unusual umask may have removed our own permissions
    return bool(missing)


def open_file(path: str, flags: int = os.O_RDONLY, *, is_secret: bool = False) -> int:
    """Open a regular file that only we or root can have written.

    Args:
        path: path of the file; a link as its last component is not followed.
        flags: flags of `os.open`; with O_CREAT, a new file gets mode 0600.
        is_secret: whether to reject a file that others may read.

    Returns:
        A descriptor, closed on exec.

    Raises:
        Untrusted: the file or a folder on the path is not trusted.
        OSError: the file cannot be opened.
    """
    folder_path, name = os.path.split(os.path.join(os.getcwd(), path))
    real = resolved(folder_path)
    folder = os.open(real, _ENTER)
    try:
        _require_folder(os.fstat(folder), real)
        try:
            file = os.open(name, flags | _SAFELY, PRIVATE_FILE_MODE, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                raise Untrusted(path, "is a symbolic link", "Move it away") from None
            if error.errno == errno.EACCES:  # perhaps because it belongs to another user
                _require_owner(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
            raise
    finally:
        os.close(folder)
    try:
        _require_file(file, path, is_secret=is_secret)
    except OSError:
        os.close(file)
        raise
    return file


def make_private_file(path: str) -> None:
    """Create a file that only we may read, or remove the permissions of others on one of ours.

    Raises:
        Untrusted: another user could have put it there.
        OSError: it cannot be created.
    """
    file = open_file(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.fchmod(file, PRIVATE_FILE_MODE)
    finally:
        os.close(file)


def read_file(path: str, bytes_max: int = FILE_BYTES_MAX, *, is_secret: bool = False) -> bytes:
    """Return the content of a file that only we or root can have written.

    Args:
        path: path of the file.
        bytes_max: maximum size, bytes.
        is_secret: whether to reject a file that others may read.

    Raises:
        Untrusted: the file or a folder on the path is not trusted.
        OSError: the file cannot be read, or is larger than `bytes_max`.
    """
    file = open_file(path, is_secret=is_secret)
    try:
        parts, size = [], 0
        while part := os.read(file, bytes_max):
            parts.append(part)
            size += len(part)
            if size > bytes_max:
                raise OSError(errno.EFBIG, f"It has more than {bytes_max} bytes", path)
        return b"".join(parts)
    finally:
        os.close(file)


def new_file(path: str, mode: int = 0o666) -> int:
    """Create an output file in a folder that may be shared with others; replace an older file of ours.

    Others can guess its name, so anything that they put there is neither followed, nor written to, nor waited for.

    Args:
        path: path of the file.
        mode: mode of the file, to which the umask is applied.

    Returns:
        A descriptor for appending, closed on exec.

    Raises:
        Untrusted: the path exists, and another user may have created it.
        OSError: the file cannot be created.
    """
    try:
        return os.open(path, _CREATE, mode)
    except FileExistsError:
        found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        what = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is not a file that you own"
        raise Untrusted(path, what, "Move it away, or choose a folder to which only you may write")
    os.unlink(path)
    return os.open(path, _CREATE, mode)


def append_file(path: str, mode: int = 0o666) -> int:
    """Open an output file that the user named, for appending; create it if it does not exist.

    It may be a device, or a pipe of ours that is being read. A link is followed only where nobody else can have put it.

    Args:
        path: path of the file.
        mode: mode of a new file, to which the umask is applied.

    Returns:
        A descriptor for appending, closed on exec.

    Raises:
        Untrusted: another user may have put something there.
        OSError: the file cannot be opened.
    """
    real = followed(path)
    flags = _SAFELY & ~os.O_NOFOLLOW if real.startswith(_PROCESSES) else _SAFELY
    try:
        file = os.open(real, _APPEND | flags, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a pipe from which no program reads", real) from None
        raise
    try:
        require_own_output(os.fstat(file), real)
    except OSError:
        os.close(file)
        raise
    os.set_blocking(file, True)
    return file


def followed(path: str) -> str:
    """Return the path of an output file that the user named, past links that nobody else can have put there.

    Links of others in folders that only their owners may write to are part of the folders that the user chose.

    Raises:
        Untrusted: another user can have put a link on the path.
        OSError: the path leads through too many links.
    """

    def check(found: os.stat_result, there: str, here: str) -> bool:
        if not stat.S_ISLNK(found.st_mode) or there.startswith(_PROCESSES):
            return False
        if found.st_uid not in (os.geteuid(), _ROOT) and _others_may_write(os.lstat(here), here):
            raise Untrusted(there, f"is a symbolic link of another user ({_name(found.st_uid)})", "Move it away")
        return True

    return _walked(path, check)


def require_own_output(found: os.stat_result, path: str) -> None:
    """Reject an existing output file that another user may have put there, instead of writing to it.

    Raises:
        Untrusted: it is not ours, or it may be another file of ours under a second name.
    """
    if stat.S_ISCHR(found.st_mode):
        return  # only root can create a device
    if found.st_uid not in (os.geteuid(), _ROOT):
        raise Untrusted(path, f"belongs to another user ({_name(found.st_uid)})", "Choose a file that you own")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        raise Untrusted(path, "is not a regular file", "Choose another one")
    _require_one_name(found, path)


def open_own(path: str, identity: tuple[int, int] | None = None) -> int:
    """Open a file of ours for reading, in any folder.

    Args:
        path: path of the file.
        identity: device and inode that it must have; None: not known.

    Raises:
        Untrusted: another user may have put it there.
        OSError: the file cannot be opened.
    """
    file = os.open(path, os.O_RDONLY | _SAFELY)
    found = os.fstat(file)
    try:
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise Untrusted(path, "is not a file that you own", "Move it away")
        if identity is None:
            _require_one_name(found, path)
        elif identity != (found.st_dev, found.st_ino):
            raise Untrusted(path, "is not the file that was written", "Move it away")
    except OSError:
        os.close(file)
        raise
    return file


def may_be_planted(found: os.stat_result, folder: str | int) -> bool:
    """Return whether others may have given another file of ours this name, by a hard link.

    Args:
        found: the status of the file.
        folder: path or descriptor of its folder.
    """
    return stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and _others_may_write(os.stat(folder), folder)


def _require_one_name(found: os.stat_result, path: str) -> None:
    if may_be_planted(found, os.path.dirname(path) or "."):
        raise Untrusted(path, "has several names (hard links)", "Move it away, or choose another folder")


def _require_file(file: int, path: str, *, is_secret: bool) -> None:
    """Reject anything but a regular file that only we or root can have written."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise Untrusted(path, "is not a regular file", "Move it away")
    _require_owner(found, path)
    if _others_may_write(found, file):
        raise Untrusted(path, f"may be written by others (mode {_mode(found)})", f"Check it, then: chmod go-w {path}")
    if is_secret and found.st_mode & _OTHERS:
        raise Untrusted(path, f"may be read by others (mode {_mode(found)})", f"Type: chmod 600 {path}")


def require_socket(path: str) -> None:
    """Reject a path that is not a Unix socket of ours in a trusted folder.

    Raises:
        Untrusted: the path is not such a socket.
        OSError: the path does not exist.
    """
    real = os.path.join(resolved(os.path.dirname(path)), os.path.basename(path))
    found = os.lstat(real)
    if not stat.S_ISSOCK(found.st_mode):
        raise Untrusted(path, "is not a socket", "Move it away")
    if found.st_uid != os.geteuid():
        raise Untrusted(path, f"belongs to another user ({_name(found.st_uid)})", "Move it away")


def require_folder(path: str) -> None:
    """Reject a folder to which others may write, even if it is sticky.

    Raises:
        Untrusted: the folder, or a folder or link on the path to it, is not trusted.
        OSError: the folder cannot be examined.
    """
    real = resolved(path)
    _require_folder(os.lstat(real), real, is_parent=False)


def _others_may_write(found: os.stat_result, where: str | int) -> bool:
    """Return whether others may write; a group without other members does not count.

    Args:
        found: the status of a file or folder.
        where: its path or descriptor.
    """
    if found.st_mode & stat.S_IWOTH:
        return True
    if not found.st_mode & stat.S_IWGRP:  # this bit is the upper bound of all access control list entries
        return False
    return not _is_group_private(found.st_gid) or _is_shared_by_list(where)


def _is_shared_by_list(where: str | int) -> bool:
    """Return whether an access control list gives other users or groups write permission."""
    try:
        content = os.getxattr(where, _ACCESS_LIST)
    except (OSError, AttributeError):
        return False  # the file has no list, or the system does not support lists
    for at in range(_LIST_HEAD, len(content) - _LIST_ENTRY + 1, _LIST_ENTRY):
        kind, rights, user = (int.from_bytes(content[at + i : at + j], "little") for i, j in ((0, 2), (2, 4), (4, 8)))
        is_other = kind == _NAMED_GROUP or (kind == _NAMED_USER and user not in (os.geteuid(), _ROOT))
        if is_other and rights & _MAY_WRITE:
            return True
    return False


def _require_folder(found: os.stat_result, path: str, *, is_parent: bool = True) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    _require_owner(found, path, is_folder=True)
    is_sticky = is_parent and found.st_mode & stat.S_ISVTX
    if not is_sticky and _others_may_write(found, path):
        raise Untrusted(
            path,
            f"may be written by others (mode {_mode(found)})",
            f"If it is yours, check its contents, then: chmod go-w {path}; or choose another folder",
        )


def _require_link(found: os.stat_result, path: str) -> None:
    folder = os.path.dirname(path)
    _require_owner(found, path)
    if _others_may_write(os.lstat(folder), folder):
        raise Untrusted(
            path, "is a symbolic link in a folder to which others may write", "Use the path of the folder itself"
        )


def _require_owner(found: os.stat_result, path: str, *, is_folder: bool = False) -> None:
    if found.st_uid in (os.geteuid(), _ROOT) or (is_folder and found.st_uid == _unmapped_user()):
        return
    what = "Choose a folder that you own" if is_folder else "Move it away, or choose a file that you own"
    raise Untrusted(path, f"belongs to another user ({_name(found.st_uid)})", what)


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"


def _name(user: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(user).pw_name
    except (ImportError, KeyError):
        return str(user)


def _is_group_private(group: int) -> bool:
    """Return whether a group is our user private group, which many systems create for each user."""
    try:
        import grp
        import pwd

        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except (ImportError, KeyError):
        return False
    return user.pw_gid == group and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def _unmapped_user() -> int | None:
    """Return the user that root's folders appear to belong to if this user namespace does not map root, else None."""
    try:
        with open("/proc/self/uid_map", encoding="utf-8") as file:
            mapped = [tuple(map(int, line.split())) for line in file]
        if any(outside == _ROOT for _, outside, _ in mapped):
            return None
        with open("/proc/sys/kernel/overflowuid", encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
