"""What lies at the path of a model: enough to tell whether it is whole, readable by the engine, and the same elsewhere.

It may lie on a network file system that hangs, so commands with a deadline read it. Weights are compared by name and size;
only the configuration, the index of the weights and staging's manifest are read. What the user ``lockstep`` may have put there
is read as that user, so that no link leads root anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.commands import Run, run_command

if TYPE_CHECKING:
    from .state import Model, ModelFile, Staged

DEADLINE = 5.0
LARGEST_READ = 64 << 20
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
CONFIGS = ("config.json", "params.json")
INDEX = ".index.json"
MANIFEST = ".lockstep-model.json"
USER = "lockstep"


def model(path: str, run: Run = run_command) -> Model:
    """What is at ``path``, an absolute one.

    Raises:
        TimeoutError: its file system does not answer.
        OSError: it cannot be listed.
    """
    run = _as_who_may_have_put_it(path, run)
    found = run(["find", "-L", path, "-maxdepth", "1", "-printf", r"%y %s %P\0"], DEADLINE)
    if found.timed_out:
        raise TimeoutError(f"{path} cannot be listed within {DEADLINE:.0f} s: its file system hangs")
    entries = [entry.split(" ", 2) for entry in found.stdout.split("\0") if entry.count(" ") >= 2]
    if not entries:
        if "No such file" in found.stderr or "Not a directory" in found.stderr:
            return {"path": path, "kind": "absent", "files": {}, "weights": {}, "missing": [], "readable_by": {},
                    "free_mib": _free(path, run), "staged": None}  # fmt: skip
        raise OSError(f"{path}: {found.stderr.strip() or f'find ended with {found.returncode}'}")
    sizes = {name or path.rpartition("/")[2]: int(size) for kind, size, name in entries if kind == "f"}
    files = {
        name: _read(f"{path}/{name}", size, run)
        for name, size in sorted(sizes.items())
        if name in CONFIGS or name.endswith(INDEX)
    }
    weights = {name: size for name, size in sorted(sizes.items()) if name.endswith(WEIGHTS)}
    folder = entries[0][0] == "d"
    shards = {shard for _about, named in files.values() for shard in named if "/" not in shard}
    return {
        "path": path,
        "kind": "folder" if folder else "file",
        "files": {name: about for name, (about, _named) in files.items()},
        "weights": weights,
        "missing": sorted(shards - set(sizes)),
        "readable_by": _readable([path, *(f"{path}/{name}" for name in (*files, *list(weights)[:1]) if folder)], run),
        "free_mib": _free(path, run),
        "staged": _staged(path, sizes, run) if MANIFEST in sizes else None,
    }


def _staged(path: str, sizes: dict[str, int], run: Run) -> Staged | None:
    """What staging has left there, by its manifest; None where that cannot be used."""
    from ..model import manifest  # where it is needed: few probes find one

    shown = run(["cat", f"{path}/{MANIFEST}"], DEADLINE) if sizes[MANIFEST] <= manifest.LIMIT else None
    if shown is None or not shown.ok:
        return None
    try:
        have = manifest.read(shown.stdout)
    except ValueError:
        return None
    lacking = [name for name, file in have.files.items() if "/" not in name and sizes.get(name) != file.size]
    return {"source": have.source, "digest": have.digest, "mib": have.size >> 20, "lacking": sorted(lacking)}


def _as_who_may_have_put_it(path: str, run: Run) -> Run:
    """``run`` as the user ``lockstep`` where a part of the path is that user's."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return run
    parts = [path, *map(str, Path(path).parents)]
    owners = {line for option in ("--format=%u", "-L --format=%u")
              for line in run(["stat", *option.split(), "--", *parts], DEADLINE).stdout.split()}  # fmt: skip
    if os.geteuid() != 0 or str(user.pw_uid) not in owners:
        return run
    return lambda argv, deadline: run([*switch_to(USER), *argv], deadline)


def switch_to(user: str) -> list[str]:
    """What runs a command as ``user`` with that user's groups."""
    return ["setpriv", "--reuid", user, "--regid", "nogroup" if user == "nobody" else user, "--init-groups"]


def _free(path: str, run: Run) -> int | None:
    """MiB that are free where ``path`` is, or will be: at the nearest folder above it that is there."""
    nearest = Path(path)
    for folder in (nearest, *nearest.parents):
        shown = run(["df", "--output=avail", "-BM", str(folder)], DEADLINE)
        if shown.ok:
            digits = shown.stdout.split()[-1].rstrip("M")
            return int(digits) if digits.isdigit() else None
        if shown.timed_out:
            return None
    return None


def _read(path: str, size: int, run: Run) -> tuple[ModelFile, set[str]]:
    """Size and checksum of a file, and the files of weights that it names; what is too large is not read."""
    shown = run(["cat", path], DEADLINE) if size <= LARGEST_READ else None
    if shown is None or not shown.ok:
        return {"size": size, "sha256": None}, set()
    digest = hashlib.sha256(shown.stdout.encode()).hexdigest()
    try:
        content = json.loads(shown.stdout)
        named = content.get("weight_map", {}) if path.endswith(INDEX) else {}
        return {"size": size, "sha256": digest}, set(map(str, named.values()))
    except (AttributeError, ValueError):
        return {"size": size, "sha256": None}, set()


def _readable(paths: list[str], run: Run) -> dict[str, bool]:
    """Whether the engine's user can read ``paths``, by its name; where it does not exist yet, one who owns nothing stands
    for it. Empty where that could not be tried."""
    user = USER
    try:
        pwd.getpwnam(user)
    except KeyError:
        user = "nobody"
    tried = run([*switch_to(user), "sh", "-c", 'for path; do test -r "$path" || exit 3; done', "sh", *paths], DEADLINE)
    return {user: tried.ok} if tried.returncode in (0, 3) else {}
