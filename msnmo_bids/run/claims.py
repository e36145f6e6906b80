"""Several runs at once: each participant belongs to one of them at a time.

A run claims a participant in its output folder and in its work folder before it touches anything of
theirs. A claim is a lock on one byte of a file (POSIX record lock): it ends with the process that
holds it, however that ends, and holds between the nodes of a cluster where the disk supports locks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

LOCK_NAME = ".msnmo.lock"
_HELD = (errno.EACCES, errno.EAGAIN)


class Claims:
    """The participants that this run works on.

    Parameters
    ----------
    *folders : Path
        Where other runs may be at work too; made when they are missing.
    """

    def __init__(self, *folders: Path) -> None:
        self._files = {folder: _LockFile(folder / LOCK_NAME) for folder in folders}

    def take(self, name: str) -> bool:
        """Claim a participant, unless another run has."""
        taken: list[_LockFile] = []
        for file in self._files.values():
            if not file.lock(_place(name), 1):
                for other in taken:
                    other.unlock(_place(name), 1)
                return False
            taken.append(file)
        return True

    def release(self, names: Iterable[str]) -> None:
        """Let other runs have participants."""
        for name in names:
            for file in self._files.values():
                file.unlock(_place(name), 1)

    def alone(self, folder: Path) -> bool:
        """Say whether no other run has a claim in a folder, and keep it so until the end."""
        return self._files[folder].lock(0, 0)

    def close(self) -> None:
        """End all claims; remove the files that no other run uses."""
        for file in self._files.values():
            file.close()


def _place(name: str) -> int:
    """Return the byte that stands for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


class _LockFile:
    """A file whose bytes are locked; a length of 0 is all of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._useless = False

    def lock(self, start: int, length: int) -> bool:
        """Lock bytes, unless another process has; where the disk has no locks, say so once."""
        if self._useless:
            return True
        try:
            while True:
                stream = self._open()
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
                if self._is_there(stream):
                    return True
                stream.close()  # another run removed the file, its last one, before we had the lock
        except OSError as error:
            if error.errno in _HELD and self._stream is not None:
                return False
            self._useless = True
            logger.warning(
                "%s: files cannot be locked there (%s): let no other run work on the same "
                "participants at the same time",
                self._path.parent,
                error.strerror or error,
            )
            return True

    def unlock(self, start: int, length: int) -> None:
        """Unlock bytes."""
        if self._stream is not None and not self._stream.closed:
            fcntl.lockf(self._stream, fcntl.LOCK_UN, length, start)

    def close(self) -> None:
        """Unlock all, and remove the file unless another process has locked some of it."""
        if self._stream is None or self._stream.closed:
            return
        with self._stream, suppress(OSError):
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink()

    def _open(self) -> BinaryIO:
        if self._stream is None or self._stream.closed:
            self._stream = None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("ab")
        return self._stream

    def _is_there(self, stream: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(stream.fileno()), self._path.stat())
        except FileNotFoundError:
            return False
