"""Building the serving environment of a host from a lock, so that a killed run leaves nothing half done in use.

Every lock has a folder of its own, named after its digest; ``current`` is a link that is switched, in one step, to a
folder that was built and tried. The one before stays for restore.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core import deadline, records
from ..core.errors import StopError
from . import locked
from . import state as runtime_state

ROOT = records.RUNTIME.parent
UV = ROOT.parent / "bin" / "uv"
CHECK_DEADLINE = 600.0
"""Seconds for the first import of everything, on a cold disk."""
EXTRA = "extra-requirements.txt"
_COMPLETE = "lockstep.json"
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
# Serving may not write into the environment, so this also leaves the compiled form of nearly all that it imports.
_TRY = """
import contextlib, importlib
for name in ("torch", "ray", "vllm"):
    importlib.import_module(name)
for name in ("ray.scripts.scripts", "ray.dashboard.dashboard", "ray.dashboard.agent", "vllm.entrypoints.openai.api_server",
             "vllm.v1.engine.core", "vllm.v1.worker.gpu_worker", "torch._inductor.compile_fx"):
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""


class InstallError(StopError):
    """The environment cannot be built."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """The environment to build.

    Attributes:
        lock: requirements file in which every distribution is pinned, all dependencies included.
        extra: further pinned requirements, such as plug-ins, that no lock has; each with its hash (``name==1 --hash=sha256:…``)
            where the lock has hashes.
        python: interpreter of the host that it is built for; name or path.
        wheelhouse: folder or URL with all wheels; with it, no index is asked.
        index_url: package index to use; None for uv's default.
        deadline: seconds that the installation may take.
        uv: the installer.
    """

    lock: Path
    extra: tuple[str, ...] = ()
    python: str = "python3"
    wheelhouse: str | None = None
    index_url: str | None = None
    deadline: float = 3600.0
    uv: Path = UV


@dataclasses.dataclass(frozen=True)
class Installed:
    """What ``install`` did, or in check mode would do.

    Attributes:
        changed: whether ``current`` is or would be another environment, or an old one is or would be removed.
        digest: of the desired environment.
        before: of the one that was in use; None where there was none.
        built: whether it was built anew.
        removed: digests of environments no longer kept.
        state: versions in use now (``runtime_state.state``).
    """

    changed: bool
    digest: str
    before: str | None
    built: bool
    removed: tuple[str, ...]
    state: Mapping[str, str | None]


def digest_of(lock: str, extra: Sequence[str], python: str) -> str:
    """Sixteen hex digits that change with anything that decides the environment's content.

    Args:
        lock: text of the lock; its comments don't count.
        extra: further requirements.
        python: major and minor version.
    """
    lines = [line.strip() for line in lock.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    text = json.dumps([lines, sorted(extra), python])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def commands(environment: Environment, lock: str, folder: Path, cache: Path) -> list[list[str]]:
    """The uv commands that build the environment, in order."""
    source = ["--no-index"] if environment.wheelhouse else []
    common = ["--python", str(folder / "bin" / "python"), "--cache-dir", str(cache), "--no-config", *source]
    # A source distribution is built by code that nothing pins, as root.
    checked = ["--only-binary", ":all:", *(["--require-hashes"] if locked.has_hashes(lock) else [])]
    install = [str(environment.uv), "pip", "install", "--no-deps", *common, *checked, "--requirements"]
    made = [
        [
            str(environment.uv),
            "venv",
            "--no-config",
            "--no-python-downloads",
            "--cache-dir",
            str(cache),
            "--python",
            environment.python,
            str(folder),
        ],
        [*install, str(environment.lock)],
    ]
    if environment.extra:
        made.append([*install, str(folder / EXTRA)])
    return made


def sources(environment: Environment) -> dict[str, str]:
    """Where uv looks, for its environment rather than its arguments, which anybody may read: the URLs may hold a password."""
    if environment.wheelhouse:
        return {"UV_FIND_LINKS": environment.wheelhouse}
    return {"UV_DEFAULT_INDEX": environment.index_url} if environment.index_url else {}


def kept(environments: Mapping[str, float], current: str, before: str | None, previous: str | None = None) -> set[str]:
    """Which environments stay: the one in use, one to go back to (the one before, else the newest other), and ``previous``,
    which a change that is not accepted yet is rolled back to."""
    others = sorted((name for name in environments if name != current), key=lambda name: environments[name])
    back = before if before in environments and before != current else (others[-1] if others else None)
    return {current, *filter(None, (back, previous))}


def install(
    environment: Environment, *, check: bool = False, root: Path = ROOT, previous: str | None = None
) -> Installed:
    """Have ``root``/current be the desired environment.

    Args:
        environment: the environment.
        check: change nothing, only report what would change.
        root: folder of all environments.
        previous: the environment that a rollback would go back to; it is never removed.

    Raises:
        InstallError: it cannot be built; what was in use stays in use.
    """
    lock = _read(environment.lock)
    if refusal := locked.unsafe(
        locked.has_hashes(lock), environment.extra, environment.wheelhouse or environment.index_url or ""
    ):
        raise InstallError(refusal)
    digest = digest_of(lock, environment.extra, _python_minor(environment.python))
    before = current(root)
    folder = root / digest
    ready = is_complete(folder)
    present = _environments(root)
    surplus = set(present) - kept({**present, digest: 0.0}, digest, before, previous)
    remove = tuple(sorted(name for name in surplus if not _in_use(root / name)))
    changed = before != digest or not ready or bool(remove)
    if not check and changed:
        if not ready:
            _build(environment, lock, folder, root / f".cache-{digest}")
        switch(root, digest)
        for name in remove:
            shutil.rmtree(root / name)
    return Installed(changed, digest, before, not ready, remove, runtime_state.state(root / "current"))


def problems(state: Mapping[str, str | None], lock: str, digest: str) -> list[str]:
    """Why the environment in use is not the one that the lock asks for; empty when it is."""
    found = []
    if state.get("lock") != digest:
        found.append(f"the environment in use is {state.get('lock') or 'absent'}, the lock asks for {digest}")
    for name, version in runtime_state.pins(lock).items():
        if name in ("ray", "torch", "vllm") and state.get(name) != version:
            found.append(f"{name} is {state.get(name) or 'absent'}, the lock pins {version}")
    return found


def expected_digest(environment: Environment) -> str:
    """The digest of the desired environment on this host."""
    return digest_of(_read(environment.lock), environment.extra, _python_minor(environment.python))


def _build(environment: Environment, lock: str, folder: Path, cache: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    make, *fill = commands(environment, lock, folder, cache)
    _run(make, environment.deadline)
    (folder / EXTRA).write_text("".join(f"{requirement}\n" for requirement in environment.extra), encoding="utf-8")
    for argv in fill:
        _run(argv, environment.deadline, sources(environment))
    _run([str(folder / "bin" / "python"), "-Ic", _TRY], CHECK_DEADLINE)
    shutil.rmtree(cache, ignore_errors=True)
    records.write(folder / _COMPLETE, {"lock": folder.name, "extra": list(environment.extra), "at": records.now()})


def _run(argv: list[str], seconds: float, environment: Mapping[str, str] | None = None) -> None:
    outcome = deadline.run(argv, deadline=seconds, env={**os.environ, **(environment or {})})
    if outcome.status == "timeout":
        raise InstallError(f"{' '.join(argv[:3])} did not end within {seconds:g} s: raise serving_runtime_deadline")
    if outcome.status != "done":
        raise explain(argv, (outcome.stderr or outcome.stdout).strip())


def explain(argv: Sequence[str], output: str) -> InstallError:
    """The cause of a failed command, from the end of its output, and what to do."""
    tail = "\n".join(output.splitlines()[-15:]) or "no output"
    if "--no-index" in argv and re.search(r"no versions? of|was not found|not found in the", output):
        return InstallError(f"the wheelhouse lacks a wheel that the lock pins: fill it from the same lock. uv: {tail}")
    if "no wheels with a matching Python ABI tag" in output:
        fits = re.search(r"with the following Python ABI tags?: (.+)", output)
        wanted = f"; the lock has wheels for {fits.group(1).strip()}" if fits else ""
        cause = f"the lock was made for another Python than the host's{wanted}: set serving_runtime_python, or "
        return InstallError(f"{cause}serving_runtime_lock to one for this Python. uv: {tail}")
    if re.search(r"does not satisfy Python|No interpreter found", output):
        return InstallError(f"the host's Python does not suit the lock: set serving_runtime_python. uv: {tail}")
    return InstallError(f"{' '.join(argv[:3])} failed: {tail}")


def switch(root: Path, digest: str) -> None:
    """Have ``root``/current be this environment, in one step."""
    scratch = root / ".current"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(digest)
    os.replace(scratch, root / "current")


def is_complete(folder: Path) -> bool:
    """Whether an environment was built to its end."""
    return (folder / _COMPLETE).is_file()


def current(root: Path) -> str | None:
    """Digest of the environment in use; None where there is none."""
    try:
        return os.readlink(root / "current")
    except OSError:
        return None


def _environments(root: Path) -> dict[str, float]:
    """Every environment there, whole or not, with the moment it was made."""
    if not root.is_dir():
        return {}
    return {
        entry.name: entry.stat().st_mtime
        for entry in os.scandir(root)
        if entry.is_dir(follow_symlinks=False) and re.fullmatch(r"[0-9a-f]{16}", entry.name)
    }


def _in_use(folder: Path) -> bool:
    """Whether a process has mapped a library of that environment: what runs must not lose its files."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if f" {folder}/" in maps.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:
            continue
    return False


def _python_minor(python: str) -> str:
    path = shutil.which(python)
    if path is None:
        raise InstallError(f"the host has no {python}: install it, or set serving_runtime_python")
    outcome = deadline.run([path, "-ISc", _VERSION], deadline=10)
    if outcome.status != "done":
        raise InstallError(f"{path} does not run: {outcome.stderr.strip()}")
    return outcome.stdout.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InstallError(f"{path}: cannot be read: {error}") from error
