"""What `.onnx` models were converted to, kept in a folder, so that each is converted once.

An entry is an ORT format file with a line at its end that tells its checksum. Its name is a digest
of all that decides its content: the model with its external data, level and options, the release
of Ortolan. A note beside it says which files had that content, with their sizes and times, and
those of the entry: while they are the same, nothing is read but the note. Entries are written
beside their place and renamed, so any number of processes may share the folder. Whatever is wrong
with it, the model opens: at worst it is converted each time.

ORTOLAN_CACHE names the folder, or is "off"; ORTOLAN_CACHE_LIMIT is its limit in MB, 1024 if unset.
Beyond it, entries that were used least recently are deleted. What else is in the folder stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ortolan
from ortolan.cache_notes import SUFFIX as NOTE
from ortolan.cache_notes import Note, absolute, facts_of, folder, sources, touch
from ortolan.errors import OrtolanError
from ortolan.external_data import external_files

__all__ = ["load"]

_SUFFIX = ".ort"
_LIMIT_MB = 1024
# The line at the end of an entry, and its length: the flatbuffer before it does not look at it.
_TRAILER = b"\nortolan-cache %08x %016x\n"
_TRAILER_SIZE = len(_TRAILER % (0, 0))
# The names of what is written here: a folder may have other files.
_OURS = re.compile(rf"[0-9a-f]{{64}}\{_SUFFIX}|[0-9a-f]{{20,}}\{NOTE}")
_UNFINISHED = re.compile(r"[0-9a-f]{20,}\.[0-9a-f]{16}\.tmp")
# What another process was writing is left alone for so long, in seconds.
_STALE = 3600.0
_CHUNK = 1 << 20
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# What the system said of files when they were read, by path.
Files = dict[str, os.stat_result]


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
    if place is None:
        return convert()
    note = None if isinstance(source, bytes) else Note(place, source, settings)
    files: Files = {}
    key = _key(source, settings, files)
    if key is None:
        return convert()
    entry = Path(place, f"{key}{_SUFFIX}")
    if not _is_whole(entry):
        return _convert(entry, convert, note, files)
    try:
        open_path(str(entry))
    except OrtolanError:
        # It went just now, or no release can open it; what is wrong with the model shows here.
        return _convert(entry, convert, None, files)
    touch(str(entry))
    if note is not None and files:
        _take_note(note, entry, files)
    return None


def _convert(entry: Path, convert: Callable[[], bytes], note: Note | None, files: Files) -> bytes:
    content = convert()
    # What was converted need not be what the key is of: a model may be replaced at any time.
    if _are_unchanged(files) and _store(entry, content) and note is not None:
        _take_note(note, entry, files)
    return content


def _are_unchanged(files: Files) -> bool:
    """Whether files are still those that were read."""
    try:
        return all(facts_of(os.stat(path)) == facts_of(found) for path, found in files.items())  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _digest(texts: Sequence[str]) -> hashlib._Hash:
    digest = hashlib.sha256()  # processors have instructions for it
    for text in (ortolan.__version__, sources(), *texts):
        # Names of files need not be text.
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogateescape"))
    return digest


def _key(source: str | bytes, settings: Sequence[str], files: Files) -> str | None:
    """The name of a model's entry; None where it has none, and conversion says why.

    Adds the files that were read to `files`.
    """
    digest = _digest(settings)
    try:
        if isinstance(source, bytes):
            digest.update(source)
            others = external_files(source, None)
        else:
            content = b"".join(_parts(absolute(source), files, -1))
            digest.update(content)
            others = external_files(content, Path(source).parent)
        for path in others:
            name = absolute(str(path))
            size = os.stat(name).st_size  # noqa: PTH116
            digest.update(f"{size}:{path.name}".encode("utf-8", "surrogateescape"))
            for part in _parts(name, files):
                digest.update(part)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def _parts(path: str, files: Files, size: int = _CHUNK) -> Iterator[bytes]:
    """A file's content in parts of a size, -1 for all at once; adds it to `files`.

    Raises:
        OSError: it cannot be read, is no file, or was changed meanwhile.
    """
    # A pipe without a writer would keep the opening of it waiting.
    with open(os.open(path, os.O_RDONLY | _WITHOUT_WAITING), "rb", buffering=0) as file:  # noqa: PTH123
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a file")
        while chunk := file.read(size):
            yield chunk
        if facts_of(os.fstat(file.fileno())) != facts_of(found):
            raise OSError(f"{path} is being written to")
    files[path] = found


def _take_note(note: Note, entry: Path, files: Files) -> None:
    """Remembers what files had the content that an entry is of."""
    try:
        text = note.text(str(entry), files)
        if text is not None:
            _write(Path(note.path), [text])
    except OSError:
        pass  # the folder's trouble was told when the entry was written


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


def _store(entry: Path, content: bytes) -> bool:
    """Writes an entry; a folder that cannot be written to is told and does no harm."""
    limit = _limit()
    if len(content) > limit:
        return False
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(entry, [content, _TRAILER % (zlib.crc32(content), len(content))])
        _evict(entry.parent, limit)
    except OSError as error:
        _tell(f"{entry.parent}: converted models cannot be kept ({error.strerror or error})")
        return False
    return True


def _write(path: Path, parts: Sequence[bytes]) -> None:
    """Writes a file so that it is there whole or not at all."""
    beside = path.with_name(f"{path.stem}.{os.urandom(8).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            for part in parts:
                file.write(part)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


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
                if _OURS.fullmatch(item.name):
                    entries.append((facts.st_atime, facts.st_size, item.path))
                elif _UNFINISHED.fullmatch(item.name) and now - facts.st_mtime > _STALE:
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
