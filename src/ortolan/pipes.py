"""Models that come through a pipe, such as /dev/stdin, and what is neither file nor pipe."""

from __future__ import annotations

import os
import stat

from ortolan import errors

__all__ = ["read_pipe"]

# No format has more.
_LIMIT = (1 << 31) + (1 << 20)
_CHUNK = 1 << 20


def read_pipe(path: str | os.PathLike[str]) -> bytes | None:
    """Reads a pipe to its end.

    Args:
        path: of a pipe or a file.

    Returns:
        What came; None if it is a file or is not there, which others find out.

    Raises:
        ortolan.errors.NoSuchFile: nobody writes to the pipe, or it is a device or a socket.
        ortolan.errors.LimitExceeded: it is more than a model can have.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - pathlib is a slow import
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    name = os.fspath(path)
    if not stat.S_ISFIFO(mode):
        raise errors.NoSuchFile(f"{name}: this is a device or a socket, not the file of a model")
    try:
        content = _read(name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise errors.NoSuchFile(f"{name}: cannot be read ({reason})") from error
    if not content:
        raise errors.NoSuchFile(f"{name}: nothing came through this pipe")
    return content


def _read(name: str) -> bytes:
    # Opening does not wait for somebody who writes, reading then waits for what he writes.
    descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        os.set_blocking(descriptor, True)
        content = bytearray()
        while piece := os.read(descriptor, _CHUNK):
            content += piece
            if len(content) > _LIMIT:
                raise errors.LimitExceeded(f"{name}: more than 2 GB came through this pipe")
        return bytes(content)
    finally:
        os.close(descriptor)
