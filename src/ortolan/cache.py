"""What `.onnx` models were converted to, kept in a folder, so that each is converted once.

An entry is an ORT format file with a line at its end that tells its checksum. Its name is a digest
of all that decides its content: the model with its external data, level and options, the release
of Ortolan. Entries are written beside their place and renamed, so any number of processes may
share the folder. Whatever is wrong with it, the model opens: at worst it is converted each time.

ORTOLAN_CACHE names the folder, or is "off"; ORTOLAN_CACHE_LIMIT is its limit in MB, 1024 if unset.
Beyond it, entries that were used least recently are deleted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import ortolan
from ortolan.errors import OrtolanError
from ortolan.external_data import external_files

__all__ = ["folder", "load"]

_SUFFIX = ".ort"
_LIMIT_MB = 1024
# The line at the end of an entry, and its length: the flatbuffer before it does not look at it.
_TRAILER = b"\nortolan-cache %08x %016x\n"
_TRAILER_SIZE = len(_TRAILER % (0, 0))
# What another process was writing is left alone for so long, in seconds.
_STALE = 3600.0
_CHUNK = 1 << 20


def load(
    source: str | bytes,
    settings: Sequence[str],
    convert: Callable[[], bytes],
    open_path: Callable[[str], None],
) -> bytes | None:
    """Opens what a model was converted to, or converts it and keeps the result.

    Args:
        source: path of an ONNX model, or its content.
        settings: what else decides on the result: the level, options.
        convert: does it.
        open_path: opens an ORT format file; raises OrtolanError if there is something wrong.

    Returns:
        The converted model if it is still to be opened, None if `open_path` has opened it.
    """
    place = folder()
    key = _key(source, settings) if place is not None else None
    if place is None or key is None:
        return convert()
    entry = place / f"{key}{_SUFFIX}"
    if _is_whole(entry):
        try:
            open_path(str(entry))
        except OrtolanError:
            pass  # it was damaged or went just now; what is wrong with the model shows below
        else:
            with contextlib.suppress(OSError):
                os.utime(entry)
            return None
    content = convert()
    _store(entry, content)
    return content


def folder() -> Path | None:
    """Returns the folder of the cache, which need not be there yet; None if it is off."""
    named = os.environ.get("ORTOLAN_CACHE", "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named)
    try:
        return _system_folder() / "ortolan"
    except RuntimeError:  # there is no home
        return None


def _system_folder() -> Path:
    """Where programs keep what they can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says the convention.
    return Path(named) if Path(named).is_absolute() else Path.home() / ".cache"


def _key(source: str | bytes, settings: Sequence[str]) -> str | None:
    """The name of a model's entry; None where it has none, and conversion says why."""
    digest = hashlib.sha256()  # processors have instructions for it
    for text in (ortolan.__version__, _sources(), *settings):
        digest.update(f"{len(text)}:{text}".encode())
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        digest.update(content)
        near = None if isinstance(source, bytes) else Path(source).parent
        for path in external_files(content, near):
            digest.update(f"{path.stat().st_size}:{path.name}".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


@functools.cache
def _sources() -> str:
    """A digest of the converter where it is being worked on; empty for a release."""
    package = Path(__file__).parent
    if not (package.parent.parent / "pyproject.toml").is_file():
        return ""
    digest = hashlib.sha256()
    for path, _, names in os.walk(package):
        for name in sorted(names):
            if name.endswith((".py", ".json", ".so", ".dll", ".dylib")):
                facts = Path(path, name).stat()
                digest.update(f"{path}/{name} {facts.st_size} {facts.st_mtime_ns};".encode())
    return digest.hexdigest()


def _is_whole(entry: Path) -> bool:
    """Whether an entry is there as it was written."""
    try:
        with entry.open("rb") as file:
            size = os.fstat(file.fileno()).st_size - _TRAILER_SIZE
            checksum, left = 0, size
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
            return size > 0 and file.read() == _TRAILER % (checksum, size)
    except OSError:
        return False


def _store(entry: Path, content: bytes) -> None:
    """Writes an entry; a folder that cannot be written to is told and does no harm."""
    limit = _limit()
    if len(content) > limit:
        return
    beside = entry.with_name(f"{entry.stem}.{secrets.token_hex(8)}.tmp")
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.write(_TRAILER % (zlib.crc32(content), len(content)))
            beside.replace(entry)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        _evict(entry.parent, limit)
    except OSError as error:
        _tell(f"{entry.parent}: converted models cannot be kept ({error.strerror or error})")


def _limit() -> int:
    try:
        return max(0, int(os.environ.get("ORTOLAN_CACHE_LIMIT", _LIMIT_MB))) << 20
    except ValueError:
        return _LIMIT_MB << 20


def _evict(place: Path, limit: int) -> None:
    """Deletes what was used least recently until the rest is within the limit."""
    entries: list[tuple[float, int, str]] = []
    now = time.time()
    with os.scandir(place) as found:
        for item in found:
            with contextlib.suppress(OSError):  # another process deletes as well
                facts = item.stat()
                if item.name.endswith(_SUFFIX):
                    entries.append((facts.st_mtime, facts.st_size, item.path))
                elif item.name.endswith(".tmp") and now - facts.st_mtime > _STALE:
                    Path(item.path).unlink()
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            break
        with contextlib.suppress(OSError):
            Path(path).unlink()
        total -= size


def _tell(text: str) -> None:
    import logging  # here, because it is seldom needed and takes time

    logging.getLogger("ortolan").warning(text)
