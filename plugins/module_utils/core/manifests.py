"""Everything that decides what a role does to a host, as one digest: how a run knows that nothing changed.

The controller digests what a role's files do (``role_digest``) and the values of its variables; the host keeps that digest with
the checksums of the files that the role manages. Either side changing makes the role due, with the reason.

Secrets are among both. So the host keeps no plain hash, by which a guess could be tried elsewhere, but one that is keyed with a
random key of its own, which root alone reads and which never leaves it: the controller sends what it wants, and the host
says whether that is what it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from . import records, untrusted

# Role to the part of the tree, besides its own folder, that it installs on hosts.
ALSO_INSTALLED = {"gpu_host": ("plugins/module_utils", "data")}
# Verbs that change what is on a host and record it; the variables of the others decide how a run goes, not what it leaves.
RECORDING_VERBS = ("configure", "install")
# Of their variables, those that bound how long it may take, or record why.
HOW_NOT_WHAT = {
    "nvidia_driver_apt_deadline",
    "nvidia_driver_apt_lock_deadline",
    "nvidia_driver_run",
    "serving_runtime_deadline",
    "vllm_server_serving_deadline",
    "vllm_server_drain_reason",
}


class _Newer(TypedDict, total=False):
    code: str


class Manifest(_Newer):
    """The record of a role just applied on a host: its inputs and its files, all as keyed digests, None where absent.

    ``code`` is the part of the inputs that came with Lockstep, less what the operator declares; earlier versions wrote none.
    """

    role: str
    inputs: str
    files: dict[str, str | None]


def deciding(specs: Mapping[str, Any]) -> list[str]:
    """The variables, of a role's argument_specs, that decide what the role leaves on a host, sorted."""
    names = {name for verb in RECORDING_VERBS for name in specs.get(verb, {}).get("options", {})}
    return sorted(names - HOW_NOT_WHAT)


def digest(files: str, variables: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """The digest of a role's inputs: its ``files`` digest, and that of its variables' values and of the topology it reads."""
    declared = json.dumps([variables, context], sort_keys=True, default=str)
    return ".".join(hashlib.sha256(part.encode()).hexdigest() for part in (files, declared))


def key(path: Path | None = None) -> bytes:
    """This host's key; empty where it has made none, and then nothing is as it was recorded."""
    try:
        return untrusted.read_file(path or records.MANIFEST_KEY)
    except OSError:
        return b""


def make_key(path: Path | None = None) -> bytes:
    """This host's key, made where there is none."""
    import secrets  # where it is needed: a probe makes no key

    path = path or records.MANIFEST_KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32))
            stream.flush()
            os.fsync(handle)
    return key(path)


def keyed(content: bytes, with_key: bytes) -> str:
    """The digest by which this host knows ``content`` again, and nobody without the key can try a guess at it."""
    return hmac.new(with_key, content, hashlib.sha256).hexdigest()


def file_digest(path: Path, with_key: bytes) -> str | None:
    """The keyed digest of a file's content; of its target for a link; None where there is nothing to read."""
    try:
        return keyed(path.read_bytes(), with_key)
    except OSError:
        return None


def parse(stored: Mapping[str, Any]) -> Manifest:
    """A manifest from JSON. Raises RecordError where it is none."""
    return records.parsed(Manifest, stored, f"manifest of role {stored.get('role')}")


def manifest(role: str, inputs: str, files: Sequence[str], with_key: bytes) -> Manifest:
    """The record of a role just applied on this host: its inputs and the checksums of the files it manages."""
    return {
        "role": role,
        "inputs": keyed(inputs.encode(), with_key),
        "code": keyed(_code(inputs), with_key),
        "files": {name: file_digest(Path(name), with_key) for name in sorted(files)},
    }


def applied(record: Manifest, inputs: str | None, with_key: bytes) -> bool:
    """Whether a role was applied from just these inputs. Nothing was, where the key is lost."""
    if inputs is None or not with_key:
        return False
    return hmac.compare_digest(record["inputs"], keyed(inputs.encode(), with_key))


def same_code(record: Manifest, inputs: str | None, with_key: bytes) -> bool:
    """Whether Lockstep does in this role what it did when the role was applied."""
    if inputs is None or not with_key:
        return False
    return hmac.compare_digest(record.get("code", ""), keyed(_code(inputs), with_key))


def _code(inputs: str) -> bytes:
    return inputs.partition(".")[0].encode()


def drifted(record: Manifest, with_key: bytes) -> list[str]:
    """The files of a manifest whose content is no longer what the role left."""
    return [name for name, known in sorted(record["files"].items()) if file_digest(Path(name), with_key) != known]
