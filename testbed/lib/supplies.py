"""What the hosts are given: node image, driver repository, wheelhouse, model. Built once, kept in testbed/.cache."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import shutil
from pathlib import Path

from testbed.lib import debian_drivers, debs, image, shell, wheels
from testbed.lib.layout import CACHE, ROOT

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


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fresh(mark: str, digest: str) -> bool:
    """Whether what ``mark`` stands for was made from the same sources."""
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
    sha1 = _sha256(MIRROR / "nvidia" / debs.SHA1_KEYRING)
    _made("driver", digest, keyring_sha256=checksum, sha1_keyring_sha256=sha1)


def build_real_drivers(suite: str, tag: str) -> None:
    """NVIDIA's real packages for a Debian release, fetched once and again when the code or the node's packages change.

    What the archive has may move on meanwhile; the versions that were fetched stay on offer, and ``facts`` names them.
    """
    sources = (ROOT / "lib" / "debian_drivers.py", ROOT / "lib" / "archive.py", ROOT / "image" / "packages.txt")
    digest, mark = _digest(*sources), f"debian-{suite}"
    if _fresh(mark, digest):
        return
    signer = debs.Signer(CACHE / "gnupg")
    with shell.step(f"NVIDIA's packages of Debian's archive ({suite})"):
        found = debian_drivers.make(suite, tag, MIRROR / "debian", signer)
    signer.close()
    _made(mark, digest, **found)


def build_wheelhouse() -> None:
    """Wheels of the lock (fetched again when the lock changes), then the testbed's own."""
    wheelhouse = MIRROR / "wheels"
    digest = _digest(wheels.LOCK) if wheels.LOCK.exists() else ""
    if not _fresh("wheels", digest):
        with shell.step("wheelhouse"):
            shutil.rmtree(wheelhouse, ignore_errors=True)
            wheelhouse.mkdir(parents=True)
            wheels.download(wheelhouse)
        _made("wheels", digest)
    own = _digest(*wheels.DISTRIBUTIONS)
    if not _fresh("own-wheels", own) or not list(wheelhouse.glob("lockstep_testbed_platform-*.whl")):
        made = [wheels.build_wheel(source, wheelhouse) for source in wheels.DISTRIBUTIONS]
        _made("own-wheels", own, **{f"{path.name.partition('-')[0]}_sha256": _sha256(path) for path in made})


def build_model() -> None:
    """The tiny model, trained when its script changed."""
    digest = _digest(ROOT / "model")
    if _fresh("model", digest):
        return
    with shell.step("model"):
        wheels.train_model(MIRROR / "wheels", CACHE / "models" / "tiny")
    answer = json.loads((CACHE / "models" / "tiny" / "answer.json").read_text())
    _made("model", digest, proof_prompt=answer["prompt"], proof_answer=answer["answer"])


def build(suite: str) -> str:
    """Build everything that is missing or out of date; return the tag of the node image of this release.

    The image and the rest have nothing to do with each other: they are made side by side.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    MIRROR.mkdir(exist_ok=True)
    (CACHE / "models").mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        node_image = pool.submit(_build_image, suite)
        build_driver_repository()
        build_wheelhouse()
        build_model()
        return node_image.result()


def _build_image(suite: str) -> str:
    with shell.step(f"node image ({suite})"):
        return image.ensure(suite)
