"""How files are written: whole or not at all, and with words for a disk that does not take them. And how they are told apart."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from secateur.errors import StateError

DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
DISK_TROUBLE |= {errno.ENOENT, errno.ENAMETOOLONG}  # a folder that was removed, or in which none can be made
DISK_TROUBLE |= {
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
}  # a file or a dangling link in a folder's place, a folder in a file's


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old one or the whole new one, its folder included.

    Raises StateError where the disk does not take it.
    """
    with unfinished(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Where to write a file inside; it takes its place when that is done. Raises what `write` raises."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)  # where it could not be finished; half a file helps nobody on a full disk


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a StateError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        raise StateError(
            f"{path.parent} cannot be written: {error.strerror}. Free some space or correct the permissions, and run the same "
            "command again: whatever was finished is kept."
        ) from error


def private_folder(name: str) -> Path:
    """A folder of this user's, and of no one else's, in the system's temporary folder. Raises StateError where another owns it."""
    base = Path(tempfile.gettempdir()) / f"secateur-{os.getuid()}"
    with disk_errors(base / name):
        for folder in (base, base / name):
            with contextlib.suppress(FileExistsError):  # whatever it is, it is looked at
                folder.mkdir(mode=0o700)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode):
                raise StateError(f"{folder} is no folder. Remove it, or set TMPDIR to a folder of yours.")
            if status.st_uid != os.getuid() or (folder == base and status.st_mode & 0o077):
                raise StateError(
                    f"{folder} belongs to someone else or is open to others. Remove it, or set TMPDIR to a folder of yours."
                )
        (base / name).chmod(0o700)  # inside a private one: whatever an earlier version gave it
    return base / name


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
