"""What the text of a lock file says of the safety of what is installed from it. Pure; controller and hosts read it."""

from __future__ import annotations

from collections.abc import Sequence


def has_hashes(lock: str) -> bool:
    return "--hash=" in lock


def unsafe(hashed: bool, extra: Sequence[str], source: str) -> str | None:
    """Why whoever is between a host and its packages could run code as root; None where nothing is installed unchecked.

    Args:
        hashed: whether the lock has hashes.
        extra: the further requirements.
        source: where packages come from, a folder or URL; empty for uv's default index.
    """
    without = [requirement for requirement in extra if not has_hashes(requirement)]
    if hashed and without:
        return (
            f"serving_runtime_extra_requirements: {', '.join(without)} without a hash; all else is locked by hashes: "
            "write name==version --hash=sha256:…"
        )
    if source.startswith("http://") and not hashed:
        return "the lock has no hashes, and packages would come over http://: use a lock with hashes, or https://"
    return None
