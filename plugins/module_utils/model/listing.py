"""What a source has: every file with its size and checksum, and where to get it."""

from __future__ import annotations

import dataclasses
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core import typed
from . import hub, manifest
from .codes import Kind, Result
from .manifest import File
from .source import Source
from .transfer import Item, TransferError

DEADLINE = 30.0
"""Seconds for each question."""
MOST = 16 << 20
"""Bytes of an answer."""
MOST_PAGES = 100


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source has.

    Attributes:
        files: by path.
        commit: of a repository.
    """

    files: Mapping[str, File]
    commit: str | None = None


def of_source(source: Source, given: str, environment: Mapping[str, str], token: str | None) -> Listing:
    """What ``source`` has, before patterns leave anything out.

    Args:
        given: the operator's list of checksums; empty for none.
        environment: ``HF_ENDPOINT``.
        token: of a hub.

    Raises:
        TransferError: it cannot be asked, or says nothing of use.
    """
    try:
        listing = _of(source, given, environment, token)
    except typed.BadAnswer as error:
        raise TransferError(
            Result.NO_CHECKSUMS, f"what {source.name} says of its files cannot be used: {error}"
        ) from None
    return with_checksums(listing, given) if given else listing


def with_checksums(listing: Listing, given: str) -> Listing:
    """The files that the operator's list names, which a source has to have, each with the checksum of the list."""
    listed = manifest.checksums(given)
    lacking = sorted(set(listed) - set(listing.files))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise TransferError(Result.NO_SOURCE, f"the source lacks {lacking[0]}{more}, which model_checksums names")
    files = {path: File(listing.files[path].size, sha256) for path, sha256 in listed.items()}
    return Listing(files, listing.commit)


def items(source: Source, listing: Listing, environment: Mapping[str, str]) -> Iterator[Item]:
    """Where each file is."""
    for path, file in listing.files.items():
        yield Item(path, url(source, listing.commit, path, environment), file)


def url(source: Source, commit: str | None, path: str, environment: Mapping[str, str]) -> str:
    """Where a file of a source is, for curl."""
    if source.kind is Kind.HUB:
        return hub.file_url(endpoint(environment), source.place, commit or source.revision, path)
    quoted = urllib.parse.quote(path)
    if source.kind is Kind.HTTP:
        return f"{source.place}/{quoted}"
    return f"file://{urllib.parse.quote(source.place)}/{quoted}"


def endpoint(environment: Mapping[str, str]) -> str:
    """The hub that is asked."""
    return environment.get("HF_ENDPOINT") or hub.ENDPOINT


def _of(source: Source, given: str, environment: Mapping[str, str], token: str | None) -> Listing:
    if source.kind is Kind.HUB:
        return _of_hub(source, endpoint(environment), token)
    if source.kind is Kind.HTTP:
        return _of_http(source, given)
    return Listing(of_folder(Path(source.place), given))


def _of_hub(source: Source, at: str, token: str | None) -> Listing:
    about, _link = _json(hub.about_url(at, source.place, source.revision), token)
    commit = hub.commit(about)
    files: dict[str, File] = {}
    page: str | None = hub.tree_url(at, source.place, commit)
    for _ in range(MOST_PAGES):
        if page is None:
            return Listing(files, commit)
        answer, link = _json(page, token)
        files |= hub.files(answer)
        page = hub.next_page(link)
        if page is not None and not page.startswith(f"{at.rstrip('/')}/"):  # the token is for this hub alone
            page = f"{at.rstrip('/')}/{urllib.parse.urlsplit(page)._replace(scheme='', netloc='').geturl().lstrip('/')}"
    raise typed.BadAnswer(f"has more than {MOST_PAGES} pages")


def _of_http(source: Source, given: str) -> Listing:
    text = given or _text(f"{source.place}/{manifest.SUMS}")
    sums = manifest.checksums(text)
    return Listing({path: File(_length(url(source, None, path, {})), sha256) for path, sha256 in sums.items()})


def of_folder(folder: Path, given: str = "") -> dict[str, File]:
    """The files of a folder, with the checksums that lie beside them; links lead where they lead.

    Raises:
        TransferError: it is not there, or cannot be read.
    """
    found: dict[str, File] = {}
    try:
        sums = {} if given else _sums_of(folder)
        for top, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            folders[:] = sorted(name for name in folders if name not in (".cache", ".git"))
            for name in sorted(names):
                path = os.path.relpath(os.path.join(top, name), folder)
                if path != manifest.SUMS and manifest.path_problem(path) is None:
                    found[path] = File(os.stat(os.path.join(top, name)).st_size, sums.get(path))
    except OSError as error:
        raise TransferError(Result.NO_SOURCE, f"{error.filename or folder}: {error.strerror}") from None
    lacking = sorted(set(sums) - set(found))
    if lacking:
        raise TransferError(Result.NO_SOURCE, f"{folder} lacks {lacking[0]}, which its checksums name")
    return found if not sums else {path: found[path] for path in sums}


def _sums_of(folder: Path) -> dict[str, str]:
    """The checksums that lie in a folder: of its own manifest, or of SHA256SUMS; empty where there are none."""
    for name, read in ((manifest.NAME, _of_manifest), (manifest.SUMS, manifest.checksums)):
        try:
            return read((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise typed.BadAnswer("is no text", (name,)) from None
    return {}


def _of_manifest(text: str) -> dict[str, str]:
    return {path: file.sha256 or "" for path, file in manifest.read(text).files.items()}


def _raise(error: OSError) -> None:
    raise error


def _json(address: str, token: str | None) -> tuple[Any, str | None]:
    text, link = _get(address, token)
    return typed.loads(text), link


def _text(address: str) -> str:
    return _get(address, None)[0]


def _get(address: str, token: str | None) -> tuple[str, str | None]:
    asked = urllib.request.Request(address)
    if token:
        asked.add_unredirected_header("Authorization", f"Bearer {token}")  # for this hub, not for where it points to
    with _opened(asked) as answer:
        content = answer.read(MOST + 1)
        if len(content) > MOST:
            raise TransferError(Result.NO_SOURCE, f"{address} answers more than {MOST >> 20} MiB")
        return content.decode("utf-8", "replace"), answer.headers.get("Link")


def _length(address: str) -> int | None:
    with _opened(urllib.request.Request(address, method="HEAD")) as answer:
        length = answer.headers.get("Content-Length")
        return int(length) if length and length.isdigit() else None


def _opened(asked: urllib.request.Request) -> Any:
    address = asked.full_url
    try:
        return urllib.request.urlopen(asked, timeout=DEADLINE)
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
        raise TransferError(
            Result.REFUSED if refused else Result.NO_SOURCE, f"{address} answers {error.code} {error.reason}"
        ) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise TransferError(Result.NO_SOURCE, f"{address} does not answer: {why}") from None
