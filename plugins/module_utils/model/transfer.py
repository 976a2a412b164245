"""Files brought by ``curl``, which goes on where it was ended.

A hub's too: ``hf download`` of huggingface_hub 2.4 begins a file anew after a kill, as each attempt has a temporary name of
its own (file_download.py), and a host that is set up for the first time has no serving environment yet.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.errors import StopError
from .codes import Result
from .manifest import File
from .store import partial

TOGETHER = 4
"""Files at once."""
FRUITLESS = 4
"""Attempts in a row that bring nothing, after which a file is given up."""
STALLED = 60
"""Seconds without a byte that end an attempt."""
NO_RANGES = 33
"""curl's exit status for a server that cannot go on in the middle of a file."""
TOKEN = "Authorization"
_LONGEST = 400


class TransferError(StopError):
    """A file could not be brought; ``result`` is the kind of reason."""

    def __init__(self, result: Result, cause: str) -> None:
        super().__init__(cause)
        self.result = result


@dataclasses.dataclass(frozen=True)
class Item:
    """A file to bring.

    Attributes:
        path: below the model's folder.
        url: of http, https or file.
        file: what it is to be.
    """

    path: str
    url: str
    file: File


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How one ``curl`` ended."""

    returncode: int
    status: int
    words: str


def kind_of_failure(attempt: Attempt) -> Result:
    """What an attempt's end means: ``failed`` where another may bring more."""
    if attempt.status in (401, 403):
        return Result.REFUSED
    if attempt.status in (404, 410) or attempt.returncode == 37:  # 37: a file: URL that cannot be read
        return Result.NO_SOURCE
    return Result.FAILED


def curl(item: Item, target: Path, token: str | None) -> Attempt:
    """Bring a file, or what is left of it. The token reaches curl by its standard input alone."""
    header = f'header = "{TOKEN}: Bearer {token}"\n' if token else ""
    argv = ["curl", "--fail", "--silent", "--show-error", "--location", "--globoff", "--proto", "=http,https,file",
            "--proto-redir", "=http,https", "--connect-timeout", "20", "--speed-limit", "1", "--speed-time", str(STALLED),
            "--write-out", "%{http_code}", "--continue-at", "-", "--output", str(target), "--config", "-"]  # fmt: skip
    done = subprocess.run(
        argv, input=f'{header}url = "{item.url}"\n', capture_output=True, text=True, check=False, errors="replace"
    )
    status = done.stdout.strip()[-3:]
    words = done.stderr.strip().splitlines()
    return Attempt(done.returncode, int(status) if status.isdigit() else 0, words[-1][:_LONGEST] if words else "")


def fetch(
    items: Sequence[Item],
    folder: Path,
    token: str | None = None,
    pause: Callable[[float], None] = time.sleep,
    attempt: Callable[[Item, Path, str | None], Attempt] = curl,
) -> None:
    """Bring all ``items`` into ``folder``, each under its own name only once it has its full length.

    Raises:
        TransferError: one could not be brought; what was brought of it, and of the others, is kept.
    """
    with ThreadPoolExecutor(max_workers=TOGETHER) as pool:
        for future in [pool.submit(_fetch_one, item, folder, token, pause, attempt) for item in items]:
            future.result()


def _fetch_one(
    item: Item,
    folder: Path,
    token: str | None,
    pause: Callable[[float], None],
    attempt: Callable[[Item, Path, str | None], Attempt],
) -> None:
    target, part = folder / item.path, folder / partial(item.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fruitless, before = 0, _size(part)
    while True:
        if item.file.size is not None and before > item.file.size:
            part.unlink()  # of another file than the one that is there now
            before = 0
        if before and before == item.file.size:
            break
        if item.file.size == 0:
            part.touch()
            break
        ended = attempt(item, part, token)
        after = _size(part)
        if ended.returncode == 0 and item.file.size in (None, after):
            break
        result = kind_of_failure(ended)
        fruitless = 0 if after > before else fruitless + 1
        if result is not Result.FAILED or fruitless >= FRUITLESS:
            why = ended.words or f"it ended after {after} bytes, expected {item.file.size}"
            raise TransferError(Result.NO_SOURCE if result is Result.FAILED else result, f"{item.path}: {why}")
        if ended.returncode == NO_RANGES:
            part.unlink(missing_ok=True)
        before = _size(part)
        pause(min(2.0**fruitless, 15.0))
    os.replace(part, target)


def adopt(folder: Path, files: Mapping[str, File]) -> None:
    """Give the files that somebody else has sent whole their own names; what is longer than it should be goes."""
    for path, file in files.items():
        part = folder / partial(path)
        if file.size == 0 and not (folder / path).exists():
            part.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
        if part.exists() and _size(part) == file.size:
            os.replace(part, folder / path)
        elif part.exists() and file.size is not None and _size(part) > file.size:
            part.unlink()


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
