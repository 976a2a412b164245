"""Bring a model to its folder: fetched beside what serves, checked, and visible in one step; begun anew it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..core import records, typed
from . import listing, manifest, source, store, transfer
from .codes import Kind, Result
from .listing import Listing
from .manifest import File, Manifest
from .request import Answer, Request
from .source import Source
from .store import Difference, Place

MARGIN = 1 << 30
"""Bytes that stay free on the disk."""
WATCHED_EVERY = 5.0
"""Seconds between two looks at what was fetched."""
NAMED = 3
"""Files that a message names."""

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Tools:
    """What staging works with; tests replace parts of it.

    Attributes:
        token_file: where the hub's token lies; None for none.
        tell: is given what goes on.
        free: bytes that are free for a user at a path.
    """

    token_file: Path | None = None
    tell: Tell = lambda _text: None
    free: Callable[[Path], int] = lambda path: _free(path)

    @property
    def token(self) -> str | None:
        """The hub's token."""
        return self.token_file.read_text(encoding="utf-8").strip() if self.token_file else None


def stage(request: Request, tools: Tools) -> Answer:
    """Bring the model that is asked for, or say what keeps it away."""
    place = Place(Path(request.folder), request.name)
    try:
        wanted_from = source.parse(request.source, request.revision)
        have = _present(place, wanted_from, request)
        if have is not None:
            wrong = _wrong(place.visible, have.files, request.hash_again, tools.tell)
            if not wrong:
                return Answer(Result.DONE, digest=have.digest, bytes=have.size)
            return _bring(place, wanted_from, Listing(have.files, have.commit), wrong, request, tools)
        wanted = _wanted(place, wanted_from, request, tools)
        return _bring(place, wanted_from, wanted, (), request, tools)
    except Refusal as refusal:
        return refusal.answer
    except transfer.TransferError as error:
        return Answer(error.result, error.stop.cause)
    except (typed.BadAnswer, source.BadSource) as error:
        return Answer(Result.NO_CHECKSUMS if isinstance(error, typed.BadAnswer) else Result.NO_SOURCE, str(error))


class Refusal(Exception):
    """It must not go on; ``answer`` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


def _present(place: Place, wanted: Source, request: Request) -> Manifest | None:
    """The manifest of the model that is visible; None where none is."""
    if not os.path.lexists(place.visible):
        return None
    have = store.read_manifest(place.visible)
    other = "name another folder (vllm_server_model) for this one, or remove that"
    if have is None:
        raise Refusal(Answer(Result.TAKEN, f"{place.visible} is there, and staging did not make it: {other}"))
    same = have.source == wanted.name
    if same and request.checksums:
        listed = manifest.checksums(request.checksums)
        same = listed == {path: file.sha256 for path, file in have.files.items()}
    if not same:
        raise Refusal(Answer(Result.TAKEN, f"{place.visible} was staged from {have.source} with other files: {other}"))
    return have


def _wrong(folder: Path, files: Mapping[str, File], hash_again: bool, tell: Tell) -> list[Difference]:
    if not hash_again:
        return store.compare(files, store.sizes(folder))
    total = sum(file.size or 0 for file in files.values())
    return store.damaged(files, folder, lambda read: tell(f"checked {gib(read)} of {gib(total)}"))


def _wanted(place: Place, wanted: Source, request: Request, tools: Tools) -> Listing:
    """What is to be brought: as an earlier call that was ended has noted, or as the source says now."""
    key = {"source": wanted.name, "checksums": request.checksums, "exclude": list(request.exclude)}
    noted = _noted(place, key)
    if noted is not None:
        return noted
    if wanted.kind is Kind.CONTROLLER:
        found = Listing(manifest.read(json.dumps({"source": wanted.name, "files": dict(request.files)})).files)
    else:
        tools.tell(f"asking {wanted.name} for its files")
        found = listing.of_source(wanted, request.checksums, request.environment, tools.token)
    chosen = {path: found.files[path] for path in manifest.without(found.files, request.exclude)}
    if not chosen:
        raise Refusal(Answer(Result.NO_SOURCE, f"{wanted.name} holds no files, or model_exclude leaves none"))
    bare = [path for path, file in chosen.items() if not file.sha256 and not file.git]
    if bare and wanted.kind is not Kind.PATH:
        raise Refusal(Answer(Result.NO_CHECKSUMS, f"{wanted.name} has no checksum of {bare[0]}: give model_checksums"))
    if not request.dry:
        place.wanted.parent.mkdir(mode=0o700, exist_ok=True)
        files = {path: dataclasses.asdict(file) for path, file in chosen.items()}
        records.write(place.wanted, {**key, "commit": found.commit, "files": files}, 0o640)
    return Listing(chosen, found.commit)


def _noted(place: Place, key: Mapping[str, object]) -> Listing | None:
    try:
        record = json.loads(place.wanted.read_text(encoding="utf-8"))
        files = {path: File(**about) for path, about in record["files"].items() if not manifest.path_problem(path)}
        return Listing(files, record["commit"]) if all(record.get(name) == each for name, each in key.items()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whatever is wrong with it, the source is asked again


def _bring(
    place: Place, wanted: Source, what: Listing, wrong: Sequence[Difference], request: Request, tools: Tools
) -> Answer:
    """Fetch what lacks, check all of it, show it."""
    total = sum(file.size or 0 for file in what.files.values())
    damaged = {problem.path for problem in wrong}
    whole = [path for path in what.files if path not in damaged] if wrong else []
    here = 0 if request.dry and not place.staging.exists() else staged_bytes(place.staging, what.files)
    lacking = max(total - here - sum(what.files[path].size or 0 for path in whole), 0)
    free = tools.free(place.folder)
    if lacking + MARGIN > free:
        return Answer(
            Result.NO_ROOM,
            f"{place.folder} has {gib(free)} free, and {gib(lacking)} are still to come of {request.name} ({gib(total)}), "
            "beside 1 GiB that stays free: make room, prune models that nobody wants, or name another disk by model_folder",
            bytes=total,
        )  # fmt: skip
    if request.dry:
        why = f"would fetch {gib(lacking)} of {gib(total)}, {len(what.files)} files"
        return Answer(Result.DONE, why, changed=True, bytes=total, brought=lacking)
    place.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in whole:
        _link(place.visible / path, place.staging / path)
    problems = _fetch_and_check(place, wanted, what, request, tools)
    if isinstance(problems, Answer):
        return problems
    if problems:
        named = "; ".join(map(str, problems[:NAMED]))
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        return Answer(
            Result.DAMAGED,
            f"{named}{more}, fetched twice from {wanted.name}",
            files={problem.path: problem.problem for problem in problems},
        )
    done = _manifest(place.staging, wanted, what)
    for path in set(store.sizes(place.staging)) - set(done.files):
        (place.staging / path).unlink()
    store.write_manifest(place.staging, done)
    store.show(place)
    return Answer(Result.DONE, changed=True, digest=done.digest, bytes=done.size, brought=lacking)


def _fetch_and_check(
    place: Place, wanted: Source, what: Listing, request: Request, tools: Tools
) -> list[Difference] | Answer:
    """What is wrong still, once damaged files were fetched a second time; an answer where the controller has to send some."""
    known: dict[str, str] = {}
    problems: list[Difference] = []
    for _ in range(2):
        if wanted.kind is Kind.CONTROLLER:
            transfer.adopt(place.staging, what.files)
        lacking = {problem.path for problem in store.compare(what.files, store.sizes(place.staging))}
        if lacking and wanted.kind is Kind.CONTROLLER:
            there = store.sizes(place.staging)
            offsets = {path: str(there.get(store.partial(path)) or 0) for path in sorted(lacking)}
            return Answer(Result.UPLOAD, f"{len(lacking)} files come from the controller", files=offsets)
        _fetch(
            place, wanted, Listing({path: what.files[path] for path in sorted(lacking)}, what.commit), request, tools
        )
        problems = _check(place, wanted, what.files, known, tools)
        if not problems:
            return []
        for problem in problems:
            store.remove_tree(place.staging / problem.path)
    return problems


def _fetch(place: Place, wanted: Source, what: Listing, request: Request, tools: Tools) -> None:
    if not what.files:
        return
    with _watched(place, what.files, wanted.name, tools.tell):
        items = list(listing.items(wanted, what, request.environment))
        transfer.fetch(items, place.staging, tools.token if wanted.kind is Kind.HUB else None)


def _check(
    place: Place, wanted: Source, files: Mapping[str, File], known: dict[str, str], tools: Tools
) -> list[Difference]:
    """What is damaged; what is ``known`` to be right is not read again."""
    found = store.compare(files, store.sizes(place.staging))
    wrong, read = {problem.path for problem in found}, 0
    total = sum(file.size or 0 for file in files.values())
    for path, file in files.items():
        if path not in wrong and path not in known:
            if file.sha256 or file.git:
                problem = store.content_problem(place.staging, path, file)
            else:  # a folder without checksums: what it holds itself is the measure
                same = store.hash_source(Path(wanted.place) / path) == store.hash_file(place.staging, path)
                problem = None if same else "is damaged: it differs from its source"
            if problem:
                found.append(Difference(path, problem))
            else:
                known[path] = ""
        read += file.size or 0
        tools.tell(f"checked {gib(read)} of {gib(total)}")
    return found


def _manifest(folder: Path, wanted: Source, what: Listing) -> Manifest:
    found = store.sizes(folder)
    files = {path: File(found[path], file.sha256 or store.hash_file(folder, path)) for path, file in what.files.items()}
    return Manifest(wanted.name, files, what.commit, records.now())


def staged_bytes(folder: Path, files: Mapping[str, File]) -> int:
    """How much of the ``files`` is in a folder already, what is under way included."""
    found = store.sizes(folder)
    return sum(
        min(max(found.get(path) or 0, found.get(store.partial(path)) or 0), file.size or 0)
        for path, file in files.items()
    )


@contextlib.contextmanager
def _watched(place: Place, files: Mapping[str, File], origin: str, tell: Tell) -> Iterator[None]:
    """Tells how much is there while others fetch."""
    total, over = sum(file.size or 0 for file in files.values()), threading.Event()

    def watch() -> None:
        while True:
            tell(f"{gib(staged_bytes(place.staging, files))} of {gib(total)} from {origin}")
            if over.wait(WATCHED_EVERY):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _link(whole: Path, staged: Path) -> None:
    """A second name for a file that is whole: it needs no room."""
    staged.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(staged):
        os.link(whole, staged, follow_symlinks=False)


def _free(path: Path) -> int:
    """Of the nearest folder that is there."""
    about = os.statvfs(next(folder for folder in (path, *path.parents) if folder.exists()))
    return about.f_bavail * about.f_frsize


def gib(count: int) -> str:
    """Bytes as people read them."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
