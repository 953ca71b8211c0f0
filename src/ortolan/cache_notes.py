"""Notes of the cache: which files had the content that an entry is of, with sizes and times.

While they are the same, a model opens from the cache without being read. Opening so is the most
frequent way to open a model, so what is imported here is little. A note is text: what it is for,
then a line for the entry and one for each file of the model.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import zlib
from collections.abc import Mapping, Sequence

import ortolan

__all__ = ["SUFFIX", "Note", "absolute", "facts_of", "folder", "sources", "touch"]

SUFFIX = ".note"
# A file that is younger may be changed again without a new time.
_SETTLED_NS = 2_000_000_000
# An entry that was used is touched so often, in seconds: it tells which is used least.
_TOUCH = 600.0
_MOST_BYTES = 1 << 20
# Memory for so many more would be asked of the system, and given back.
_USUAL_BYTES = 4096

# The facts and the path of an entry, then of each file of the model.
Rows = list[tuple[str, str]]
# What the notes said that were right, by folder and title, and how many are kept.
_SEEN: dict[tuple[str, str], Rows] = {}
_MOST_SEEN = 1000


def folder() -> str | None:
    """Returns the folder of the cache, which need not be there yet; None if it is off."""
    named = os.environ.get("ORTOLAN_CACHE", "")
    if named.lower() == "off":
        return None
    if named:
        return named
    # pathlib is slow to import, and only it raises where there is no home.
    system = _system_folder()
    return None if system is None else os.path.join(system, "ortolan")  # noqa: PTH118


def _system_folder() -> str | None:
    """Where programs keep what they can make again."""
    home = os.path.expanduser("~")  # noqa: PTH111
    if home == "~":
        return None
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or f"{home}\\AppData\\Local"
    if sys.platform == "darwin":
        return f"{home}/Library/Caches"
    named = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says the convention.
    return named if os.path.isabs(named) else f"{home}/.cache"  # noqa: PTH117


@functools.cache
def sources() -> str:
    """A digest of the converter where it is being worked on; empty for a release."""
    package = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    if not os.path.isfile(f"{package}/../../pyproject.toml"):  # noqa: PTH113
        return ""
    import hashlib

    digest = hashlib.sha256()
    for path, _, names in os.walk(package):
        for name in sorted(names):
            if name.endswith((".py", ".json", ".so", ".dll", ".dylib")):
                facts = os.stat(f"{path}/{name}")  # noqa: PTH116
                digest.update(f"{path}/{name} {facts.st_size} {facts.st_mtime_ns};".encode())
    return digest.hexdigest()


def facts_of(found: os.stat_result, *, is_entry: bool = False) -> str:
    """What changes with a file's content, as a text.

    Args:
        found: what the system says of the file.
        is_entry: its time of change counts not: noting its use changes that too.
    """
    changed = 0 if is_entry else found.st_ctime_ns
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino} {changed}"


def absolute(path: str) -> str:
    """The path from the root, whose links and ``..`` are left to the system."""
    try:
        return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
    except OSError:
        return path  # there is no such file, then


def _unchanged(rows: Rows) -> os.stat_result | None:
    """What the system says of an entry, if it and the files of its model are as they were."""
    entry = None
    try:
        for facts, path in rows:
            found = os.stat(path)  # noqa: PTH116 - making a Path takes longer than this
            if facts != facts_of(found, is_entry=entry is None):
                return None
            entry = entry or found
    except (OSError, ValueError):
        return None
    return entry


class Note:
    """The note of a model and of what else decides on its conversion.

    Args:
        place: the folder of the cache.
        source: the path of the model.
        settings: the level, options.
    """

    def __init__(self, place: str, source: str, settings: Sequence[str]) -> None:
        self._place = place
        self._title = ascii((ortolan.__version__, sources(), absolute(source), *settings))

    @property
    def path(self) -> str:
        """Where it is."""
        title = self._title.encode()
        # The note says what it is for: it is enough that most names differ.
        name = f"{zlib.crc32(title):08x}{zlib.adler32(title):08x}{len(title):04x}"
        return os.path.join(self._place, name + SUFFIX)  # noqa: PTH118

    def entry(self) -> str | None:
        """The entry, if neither it nor any file of the model has changed since."""
        key = (self._place, self._title)
        rows = _SEEN.get(key)
        used = rows and _unchanged(rows)
        if not used:
            rows = self._read()
            used = rows and _unchanged(rows)
        if not rows or not used:
            _SEEN.pop(key, None)
            return None
        if len(_SEEN) < _MOST_SEEN:
            _SEEN[key] = rows
        entry = rows[0][1]
        if abs(time.time() - used.st_atime) > _TOUCH:
            touch(entry, used)
        return entry

    def _read(self) -> Rows | None:
        """What the note says, if it is this one and names an entry of this folder."""
        try:
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                content = os.read(handle, _USUAL_BYTES)
                if len(content) == _USUAL_BYTES:
                    content += os.read(handle, _MOST_BYTES)
            finally:
                os.close(handle)
            title, *lines, last = content.decode("utf-8", "surrogateescape").split("\n")
        except (OSError, ValueError):
            return None
        if title != self._title or last or len(lines) < 2:
            return None
        rows = []
        for line in lines:
            *facts, path = line.split(" ", 4)
            rows.append((" ".join(facts), path))
        # It names files in this folder only, whoever wrote it.
        folder = os.path.dirname(rows[0][1])  # noqa: PTH120
        return rows if folder == os.path.abspath(self._place) else None  # noqa: PTH100

    def text(self, entry: str, files: Mapping[str, os.stat_result]) -> bytes | None:
        """What the note is to say; None while it cannot be sure.

        Args:
            entry: its path.
            files: by path, what the system said of each file when it was read.

        Raises:
            OSError: the entry is not there any more.
        """
        place = os.path.abspath(entry)  # noqa: PTH100
        rows = [f"{facts_of(os.stat(place), is_entry=True)} {place}"]  # noqa: PTH116
        rows += [f"{facts_of(found)} {path}" for path, found in files.items()]
        # A file may change again within the grain of its time.
        newest = max(found.st_mtime_ns for found in files.values())
        if time.time_ns() - newest <= _SETTLED_NS or any("\n" in row for row in rows):
            return None
        text = "\n".join([self._title, *rows, ""]).encode("utf-8", "surrogateescape")
        return text if len(text) < _MOST_BYTES else None


def touch(entry: str, found: os.stat_result | None = None) -> None:
    """Notes that an entry was used now."""
    try:
        changed = (found or os.stat(entry)).st_mtime_ns  # noqa: PTH116
        os.utime(entry, ns=(time.time_ns(), changed))
    except OSError:
        pass  # it is of no harm: the entry looks older than it is
