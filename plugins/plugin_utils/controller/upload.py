"""A model sent from the controller to a host's staging folder: in pieces, over Ansible's connection, as user ``lockstep``.

The host checks every file against its SHA-256 afterwards, so a piece needs no answer but that it was taken.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.errors import StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.model import listing, manifest, store

PIECE = 16 << 20
"""Bytes of one command's standard input."""
AS_USER = "setpriv --reuid lockstep --regid lockstep --init-groups --no-new-privs "
# Appends only at the place that the controller means: a piece that was sent twice changes nothing.
_APPEND = 'umask 027; mkdir -p "$(dirname "$1")"; test "$(stat -c %s "$1" 2>/dev/null || echo 0)" = "$2" || exit 9; cat >> "$1"'

Execute = Callable[[str, bytes], tuple[int, bytes, bytes]]
"""Runs a command on the host with a standard input: its exit status, output and errors."""


class UploadError(StopError):
    """A piece could not be sent."""


def files_of(
    folder: Path, checksums: str, excluded: Iterator[str] | tuple[str, ...] | list[str]
) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files of a folder of this controller; those that no list has are hashed.

    Raises:
        StopError: it cannot be read, or lacks a file that a list names.
    """
    found = listing.Listing(listing.of_folder(folder, checksums))
    if checksums:
        found = listing.with_checksums(found, checksums)
    return {
        path: {"size": about.size, "sha256": about.sha256 or store.hash_source(folder / path)}
        for path in manifest.without(found.files, excluded)
        if (about := found.files[path])
    }


def missing(sizes: Mapping[str, int], asked: object) -> dict[str, int]:
    """What a host asks for, path to how many bytes it has of it.

    Args:
        sizes: of the files that are the model's. The folder may hold others, and links: no host gets what it was not offered.

    Raises:
        UploadError: it asks for something else.
    """
    if not isinstance(asked, Mapping):
        raise UploadError("the host does not say which files it lacks")
    found = {}
    for path, there in asked.items():
        if path not in sizes:
            raise UploadError(f"the host asks for {path!r:.80}, which is no file of the model")
        if not re.fullmatch(r"[0-9]{1,18}", str(there)) or int(there) > sizes[path]:
            raise UploadError(f"the host says that it has {there!r:.40} bytes of {path}, which has {sizes[path]}")
        found[path] = int(there)
    return found


def send(folder: Path, staging: str, offsets: Mapping[str, int], execute: Execute, as_user: str = AS_USER) -> None:
    """Send the rest of each file.

    Args:
        folder: of this controller.
        staging: where the host brings the model to.
        offsets: as :func:`missing` lets them through.

    Raises:
        UploadError: a piece was not taken; what was sent before stays, and the next call goes on there.
    """
    for path, at in offsets.items():
        with (folder / path).open("rb") as stream:
            stream.seek(at)
            while piece := stream.read(PIECE):
                target = shlex.quote(f"{staging}/{store.partial(path)}")
                status, _out, err = execute(f"{as_user}sh -c {shlex.quote(_APPEND)} sh {target} {at}", piece)
                if status != 0:
                    words = err.decode("utf-8", "replace").strip().splitlines()
                    raise UploadError(
                        f"{path} could not be sent beyond {at} bytes: {words[-1] if words else f'status {status}'}"
                    )
                at += len(piece)
