"""The folder of models on a host: what is visible, what is being staged, and how it compares with a manifest.

``<folder>/<name>/`` is a model, with its manifest in it; ``<folder>/.staging/<name>/`` is one that is on its way, and
``<folder>/.staging/<name>.json`` what it is to become. All of it belongs to the user ``lockstep``, as whom this runs. No link
is followed: a model's file is a regular one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..core import records, typed
from . import manifest
from .manifest import File, Manifest

STAGING = ".staging"
REMOVED = ".removed-"
"""Before the name of what is being removed or replaced."""
BLOCK = 8 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one model lies on a host."""

    folder: Path
    name: str

    @property
    def visible(self) -> Path:
        """What engines load."""
        return self.folder / self.name

    @property
    def staging(self) -> Path:
        """Where it is brought to."""
        return self.folder / STAGING / self.name

    @property
    def wanted(self) -> Path:
        """What it is to become."""
        return self.folder / STAGING / f"{self.name}.json"


@dataclasses.dataclass(frozen=True)
class Difference:
    """A file that is not what the manifest says."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        BadAnswer: there is something, but no manifest.
    """
    try:
        with _below(folder, manifest.NAME) as stream:
            text = os.read(stream, manifest.LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise typed.BadAnswer(f"cannot be read: {error.strerror}", (str(folder / manifest.NAME),)) from None
    return manifest.read(text.decode("utf-8", "replace"))


def write_manifest(folder: Path, what: Manifest) -> None:
    """Write the manifest of a folder whose files are whole."""
    records.write(folder / manifest.NAME, what.as_record(), 0o640)


def sizes(folder: Path) -> dict[str, int | None]:
    """Every file below ``folder`` with its size; None for what is no regular file, such as a link."""
    found: dict[str, int | None] = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(top, name)
            with contextlib.suppress(FileNotFoundError):
                about = os.lstat(path)
                if not stat.S_ISDIR(about.st_mode):
                    found[os.path.relpath(path, folder)] = about.st_size if stat.S_ISREG(about.st_mode) else None
    return found


def compare(wanted: Mapping[str, File], found: Mapping[str, int | None]) -> list[Difference]:
    """What is missing, no file, or of another length. Contents are not read."""
    return [
        Difference(path, problem)
        for path, file in sorted(wanted.items())
        if (problem := _difference(file, path, found)) is not None
    ]


def _difference(file: File, path: str, found: Mapping[str, int | None]) -> str | None:
    if path not in found:
        return "is missing"
    size = found[path]
    if size is None:
        return "is a link or no regular file"
    if file.size is not None and size != file.size:
        return f"has {size} bytes, expected {file.size}"
    return None


def damaged(
    wanted: Mapping[str, File], folder: Path, tell: Callable[[int], None] = lambda _read: None
) -> list[Difference]:
    """As :func:`compare`, and every file's content is hashed too.

    Args:
        tell: is given the bytes that were read up to now.
    """
    problems = compare(wanted, sizes(folder))
    wrong, read = {problem.path for problem in problems}, 0
    for path, file in sorted(wanted.items()):
        if path not in wrong:
            problem = content_problem(folder, path, file)
            if problem:
                problems.append(Difference(path, problem))
            read += file.size or 0
            tell(read)
    return sorted(problems, key=lambda problem: problem.path)


def content_problem(folder: Path, path: str, file: File) -> str | None:
    """Why a file's content is not the one that is meant; None where it is, or where nothing says what it should be."""
    try:
        if file.sha256 and hash_file(folder, path) != file.sha256:
            return "is damaged: its SHA-256 is another"
        if not file.sha256 and file.git and git_hash(folder, path) != file.git:
            return "is damaged: its checksum in git is another"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def hash_file(folder: Path, path: str) -> str:
    """SHA-256 of a file below a folder, which is written to its disk first: what has it, has it after a power cut."""
    with _below(folder, path) as handle:
        with contextlib.suppress(OSError):  # a file system that is read-only has it
            os.fsync(handle)
        return _digest(handle, hashlib.sha256())


def hash_source(path: Path) -> str:
    """SHA-256 of a file elsewhere, whose links lead where they lead."""
    with path.open("rb", buffering=0) as stream:
        return _digest(stream.fileno(), hashlib.sha256())


def git_hash(folder: Path, path: str) -> str:
    """SHA-1 of a file as git's blob."""
    with _below(folder, path) as handle:
        start = f"blob {os.fstat(handle).st_size}\0".encode()
        return _digest(handle, hashlib.sha1(start, usedforsecurity=False))


def _digest(handle: int, total: hashlib._Hash) -> str:
    buffer = bytearray(BLOCK)
    while count := os.readv(handle, [buffer]):
        total.update(memoryview(buffer)[:count])
    return total.hexdigest()


def partial(path: str) -> str:
    """Where a file is while it is being fetched."""
    return f"{path}.part"


def show(place: Place) -> None:
    """Make what is staged visible, in one step; what had its name before is removed afterwards."""
    for top, folders, files in os.walk(place.staging):
        os.chmod(top, 0o750)
        for name in files:
            with _below(Path(top), name) as handle:
                os.fchmod(handle, 0o440)
        folders.sort()
    old = place.folder / STAGING / f"{REMOVED}{place.name}"
    if place.visible.exists():
        remove_tree(old)
        os.rename(place.visible, old)
    os.rename(place.staging, place.visible)
    for folder in (place.folder, place.folder / STAGING):
        records.sync_folder(folder)
    place.wanted.unlink(missing_ok=True)
    remove_tree(old)


def remove_tree(path: Path) -> None:
    """Remove a folder, or a link or file in its place; nothing that a link leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        for top, folders, _files in os.walk(path):
            os.chmod(top, 0o700)
            folders.sort()
        shutil.rmtree(path)


@contextlib.contextmanager
def _below(folder: Path, path: str) -> Iterator[int]:
    """A handle of the file at ``path`` below ``folder``; no part of the path may be a link."""
    handle = os.open(folder, _FOLDER)
    try:
        *folders, name = path.split("/")
        for part, flags in (*((each, _FOLDER) for each in folders), (name, _FILE)):
            inner = os.open(part, flags, dir_fd=handle)
            os.close(handle)
            handle = inner
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "no regular file")
        yield handle
    finally:
        os.close(handle)
