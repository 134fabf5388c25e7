"""Records of file contents, which decide what has to be made again.

The times of a file tell nothing certain: a good copy may be older than the bad one that it
replaces, and the clocks of a camera, a file server and this machine need not agree. A record in
`imdir` keeps what each input held when it was last read: a line of JSON for each reading, the last
one of a file counts.
"""

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lib.core.files import atomic_path

RECORD = ".contents.jsonl"
"""Name of the record in `imdir`."""

PIECE = 1 << 20
"""[byte] Files are read in pieces of this size."""

Stamp = tuple[int, int, int]
"""Size [byte], times of the last change of content and of the entry [ns]: what changes with it."""


def stamp_of(path: str | os.PathLike[str]) -> Stamp:
    """Return the stamp of a file.

    Raises
    ------
    OSError
    """
    info = os.stat(path)
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns


def checksum(path: str | os.PathLike[str]) -> str:
    """Return a checksum of the bytes of a file: CRC-32 and length, as text.

    It is no safeguard against forgery; of 4e9 changed files it takes one for the same.

    Raises
    ------
    OSError
    """
    total, size = 0, 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            total = zlib.crc32(piece, total)
            size += len(piece)
    return f"{total:08x}-{size:x}"


def sealed(content: dict[str, Any]) -> str:
    """Return a note as JSON with a digest of it, by which `unsealed` knows it again."""
    text = json.dumps(content, separators=(",", ":"))
    return f'{{"digest":"{_digest(text.encode())}","content":{text}}}'


def unsealed(text: str | bytes) -> dict[str, Any]:
    """Return the note that `sealed` gave; an empty one where the text is none, or was changed."""
    words = text.encode() if isinstance(text, str) else text
    head, _, content = words.rstrip(b"\n").partition(b',"content":')
    content, end = content[:-1], content[-1:]
    if end != b"}" or head != b'{"digest":"' + _digest(content).encode() + b'"':
        return {}
    return json.loads(content)


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


class ContentRecord:
    """The record of an `imdir`, read when it is first asked for.

    Parameters
    ----------
    imdir : path-like
    """

    def __init__(self, imdir: str | os.PathLike[str]) -> None:
        self.path = Path(imdir) / RECORD
        self._entries: dict[str, dict[str, Any]] | None = None

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The last entry of each file, by name; lines that cannot be read are left out."""
        if self._entries is None:
            self._entries = {}
            try:
                lines = self.path.read_bytes().splitlines()
            except OSError:
                lines = []
            for line in lines:
                entry = _parsed(line)
                if entry is not None:
                    self._entries[entry["name"]] = entry
        return self._entries

    def find(self, name: str) -> dict[str, Any]:
        """Return the entry of a file; an empty one where there is none."""
        return self.entries.get(name, {})

    def write(self, name: str, stamp: Stamp | None, sum_: str, **more: str) -> None:
        """Append an entry.

        Parameters
        ----------
        name : str
            Which file; kinds of files are told apart by what precedes the name.
        stamp : tuple of int, or None
            None where the file changed while it was read.
        sum_ : str
            As `checksum` gives it.
        **more : str
        """
        entry = {"name": name, "stamp": stamp and list(stamp), "sum": sum_} | more
        line = json.dumps(entry, separators=(",", ":")).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # In one piece, so that jobs may write at once; a line that was cut off spoils no other.
        number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(number, b"\n" + line + b"\n")
        finally:
            os.close(number)
        if self._entries is not None:
            self._entries[name] = entry

    def compact(self) -> None:
        """Rewrite the record without the entries that later ones replace."""
        self._entries = None
        if not self.entries:
            return
        lines = [json.dumps(one, separators=(",", ":")) for one in self.entries.values()]
        text = "".join(f"{line}\n" for line in lines).encode()
        if self.path.stat().st_size < 2 * len(text):
            return
        with atomic_path(self.path) as beside:
            beside.write_bytes(text)

    def sum_of(self, path: str | os.PathLike[str]) -> str:
        """Return the checksum of a file, read again only where its stamp is another.

        A file that cannot be read has the checksum ``unreadable``.
        """
        name = f"file:{os.path.abspath(path)}"
        try:
            stamp = stamp_of(path)
            known = self.find(name)
            if known.get("stamp") == list(stamp):
                return known["sum"]
            found = checksum(path)
        except OSError:
            return "unreadable"
        try:
            self.write(name, stamp, found)
        except OSError:  # a dry run in a directory that cannot be written
            pass
        return found

    @contextmanager
    def reading(self, name: str, path: str | os.PathLike[str], **more: str) -> Iterator[None]:
        """Record what a file held while the block read it.

        Parameters
        ----------
        name : str
        path : path-like
        **more : str
        """
        try:
            before = stamp_of(path)
            found = checksum(path)
            self.write(name, before, found, **more)
        except OSError:
            # Who reads it next says so. Each failure is another one, so that the next run tries
            # again; without it, what is made of the failure would pass for up to date.
            with suppress(OSError):
                self.write(name, None, "", **more, failed=str(time.time_ns()))
            yield
            return
        yield
        try:
            after = stamp_of(path)
        except OSError:
            after = None
        if after != before:
            self.write(name, None, "", **more, failed=str(time.time_ns()))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("name"), str)
    return entry if whole and isinstance(entry.get("sum"), str) else None
