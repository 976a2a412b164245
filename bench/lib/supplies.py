"""What the hosts are given: node image, driver repository, wheelhouse, model. Built once, kept in bench/.cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bench.lib import debs, image, shell
from bench.lib.layout import CACHE, ROOT

MIRROR = CACHE / "mirror"
FACTS = CACHE / "facts.json"


def _digest(*paths: Path) -> str:
    """SHA-256 over files and everything below directories."""
    state = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                state.update(str(file.relative_to(ROOT.parent)).encode() + b"\0" + file.read_bytes())
    return state.hexdigest()


def _fresh(mark: str, digest: str) -> bool:
    """Tell whether what ``mark`` stands for was made from the same sources."""
    path = CACHE / f"{mark}.digest"
    return path.exists() and path.read_text() == digest


def _made(mark: str, digest: str, **found: str) -> None:
    known = facts() if FACTS.exists() else {}
    FACTS.write_text(json.dumps({**known, **found}, indent=2, sort_keys=True) + "\n")
    (CACHE / f"{mark}.digest").write_text(digest)


def facts() -> dict[str, str]:
    """What only the build knows and inventories need."""
    return dict(json.loads(FACTS.read_text()))


def build_driver_repository() -> None:
    digest = _digest(ROOT / "driver", ROOT / "lib" / "driver_catalog.py", ROOT / "lib" / "debs.py")
    if _fresh("driver", digest):
        return
    with shell.step("driver packages"):
        checksum = debs.publish(MIRROR / "nvidia", debs.Signer(CACHE / "gnupg"))
    _made("driver", digest, keyring_sha256=checksum)


def build() -> str:
    """Build everything that is missing or out of date; return the node image's tag."""
    CACHE.mkdir(parents=True, exist_ok=True)
    MIRROR.mkdir(exist_ok=True)
    build_driver_repository()
    with shell.step("node image"):
        return image.ensure()
