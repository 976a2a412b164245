"""Is the key that was fetched the one that the inventory, or NVIDIA's row for this distribution, means?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from . import openpgp
from . import repository as apt_repository
from .package_problems import Problem, ProblemKind
from .repository_access import Access
from .transaction import Declared

Fetch = Callable[[str, float, Access], bytes]
DEADLINE = 20.0


def missing(declared: Declared) -> list[Problem]:
    """What the repository cannot be used without."""
    names = [f"nvidia_driver_{name}" for name in ("repository_url", "keyring_url") if not getattr(declared, name)]
    if not (declared.keyring_sha256 or declared.keyring_fingerprint):
        names.append("nvidia_driver_keyring_fingerprint or nvidia_driver_keyring_sha256")
    if not names:
        return []
    return [Problem(ProblemKind.KEYRING, f"nvidia_driver_source is {declared.source}, so set {' and '.join(names)}")]


def fetch(declared: Declared, read: Fetch = apt_repository.fetch) -> tuple[bytes, list[Problem]]:
    """The key's bytes, and what is wrong with it."""
    try:
        address = str(declared.keyring_url)
        key = read(address, DEADLINE, declared.access.of(address, str(declared.repository_url)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return b"", [
            Problem(ProblemKind.KEYRING, f"{declared.keyring_url}: the repository's key cannot be read ({reason})")
        ]
    return key, problems(declared, key)


def problems(declared: Declared, key: bytes) -> list[Problem]:
    """Why these bytes are not the key that is meant; empty where they are."""
    digest = hashlib.sha256(key).hexdigest()
    if declared.keyring_sha256 and digest != declared.keyring_sha256.lower():
        cause = f"{declared.keyring_url} has the SHA-256 {digest}, nvidia_driver_keyring_sha256 is {declared.keyring_sha256}"
        return [Problem(ProblemKind.KEYRING, f"{cause}: compare both with what its publisher says")]
    if not declared.keyring_fingerprint:
        return []
    wanted = "".join(declared.keyring_fingerprint.split()).upper()
    try:
        found = openpgp.fingerprints(key)
    except openpgp.NoKey as error:
        return [Problem(ProblemKind.KEYRING, f"{declared.keyring_url}: {error}")]
    if set(found) == {wanted}:
        return []
    cause = f"{declared.keyring_url} holds the key {', '.join(found)}, and {wanted} is expected"
    return [Problem(ProblemKind.KEYRING, f"{cause}: compare both with what its publisher says")]


def sha256(declared: Declared, installed: Path, read: Fetch = apt_repository.fetch) -> tuple[str, list[Problem]]:
    """SHA-256 of the key that the role has to write, and what is wrong with it.

    A key that is ``installed`` already and is the one meant is asked for no more: a repository out of reach holds up no
    rollback.
    """
    if declared.keyring_sha256:
        return declared.keyring_sha256.lower(), []
    if installed.is_file():
        key = installed.read_bytes()
        if not problems(declared, key):
            return hashlib.sha256(key).hexdigest(), []
    key, wrong = fetch(declared, read)
    return hashlib.sha256(key).hexdigest(), wrong
