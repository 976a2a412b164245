"""The settings that a wave is about to change, kept on the host, so that it can be taken back to them.

Settings are what the roles of :data:`MANAGED` leave on a host: files, the manifests that they were recorded in, units that
start at boot, and the serving environment in use. They are kept before anything of them is touched, once: a run that finds
them kept by one that died keeps those. They are let go of when the wave was accepted, or taken back and admitted again.

What was accepted lies in ``/var/lib/lockstep/settings.json``: ``{"verified": {role: digest of its inputs}, "at": "…"}``.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..core import manifests, previous_settings, records
from ..core.commands import Run, run_command
from ..core.errors import StopError
from ..core.previous_settings import KeptFile, Previous
from ..core.systemd import SystemctlError, show
from ..ray import tunnel, tunnel_live
from ..runtime import install as runtime_install
from .settings_changes import SettingsChange, compare

SERVING_RUNTIME, RAY_NODE, VLLM_SERVER = "serving_runtime", "ray_node", "vllm_server"
MANAGED: Mapping[str, Sequence[str]] = {
    SERVING_RUNTIME: ("/opt/lockstep/bin/uv", "/opt/lockstep/share/serving_runtime.lock"),
    RAY_NODE: (
        "/etc/lockstep/ray-token",
        "/etc/lockstep/hub-token",
        "/etc/lockstep/ray.json",
        "/etc/lockstep/ray.env",
        "/etc/systemd/system/lockstep-ray.service",
        "/etc/systemd/system/lockstep-hoststatus.socket",
        "/etc/systemd/system/lockstep-hoststatus@.service",
        str(records.TUNNEL),
        str(tunnel_live.CONFIGURATION),
        "/etc/systemd/system/lockstep-ray.service.d/tunnel.conf",
        "/etc/systemd/system/lockstep-vllm.service.d/tunnel.conf",
    ),
    VLLM_SERVER: (
        "/etc/lockstep/engine.json",
        "/etc/lockstep/vllm-api-key",
        "/etc/lockstep/vllm-api-keys.yml",
        "/etc/systemd/system/lockstep-vllm.service",
    ),
}
"""Role to the files that it may write: one that is not there before a change is removed when that is taken back."""
SOCKET = "lockstep-hoststatus.socket"
FILTER = "lockstep-filter.service"
UNITS: Mapping[str, Sequence[str]] = {
    RAY_NODE: ("lockstep-ray.service", SOCKET, tunnel.UNIT),
    VLLM_SERVER: ("lockstep-vllm.service",),
}
"""Role to the units whose start at boot it decides."""
COMMAND_DEADLINE = 60.0
_LINKED_FROM = 1 << 20
"""Bytes from which a file is kept as a second link, where it can be: roles replace files, they do not write into them."""


class SettingsError(StopError):
    """Settings cannot be kept or restored."""


@dataclasses.dataclass(frozen=True)
class Place:
    """The host whose settings are meant: where its files begin, and how a command is run there."""

    root: Path = Path("/")
    run: Run = run_command

    def at(self, name: str | Path) -> Path:
        return self.root / str(name).lstrip("/")

    @property
    def record(self) -> Path:
        return self.at(records.PREVIOUS)

    @property
    def runtime(self) -> Path:
        return self.at(runtime_install.ROOT)

    def manifest(self, role: str) -> Path:
        return self.at(records.MANIFEST / f"{role}.json")


def keep(run: str, served: bool, place: Place | None = None) -> tuple[Previous | None, bool]:
    """Keep the settings of this host, unless they are kept already. Returns what is kept, and whether that is new.

    Only what can be gone back to is kept: the settings of a replica that ``served``, or those that were accepted last.

    Raises:
        SettingsError: they could not be kept; nothing but a scratch folder was written, and that is gone.
        RecordError: a record is damaged.
    """
    here = place or Place()
    kept = previous_settings.read(here.record)
    if kept is not None:
        return kept, False
    roles = _roles_to_keep(here, served)
    if not roles:
        return None, False
    folder = here.record.parent
    try:
        for left in folder.parent.glob(f".{folder.name}.*"):  # of a run that was killed at this
            shutil.rmtree(left)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            kept = _keep_in(scratch, run, roles, here)
            if folder.exists():  # without a record: what is in it was never whole, or is let go of
                shutil.rmtree(folder)
            os.rename(scratch, folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        records.sync_folder(folder.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        room = ". Make room there, then run the same command again" if full else ""
        raise SettingsError(
            f"the settings in use cannot be kept, so none is changed: {error}{room}",
            f"df -h {folder.parent}" if full else "",
        ) from error
    return kept, True


def restore(place: Place | None = None) -> SettingsChange:
    """Take this host back to the settings that are kept. Doing it again finishes what was begun.

    Starts neither Ray nor vLLM. Returns what was taken back; nothing where nothing is kept.

    Raises:
        SettingsError: they cannot be restored.
        RecordError: the record is damaged.
    """
    here = place or Place()
    kept = previous_settings.read(here.record)
    if kept is None:
        return SettingsChange()
    if kept["runtime"] and not runtime_install.is_complete(here.runtime / kept["runtime"]):
        raise SettingsError(
            f"the serving environment {kept['runtime']} that served before is not there any more: set "
            "serving_runtime_lock to its lock",
            "ansible-playbook site.yml",
        )
    change = difference(here)
    if _now_enabled(kept, here).get(tunnel.UNIT):
        _systemctl(here, "stop", tunnel.UNIT)  # wg-quick takes down what its configuration, still there, has set up
    try:
        for name in change.files:
            _restore_file(here.at(name), kept["files"][name], here.record.parent)
        if change.runtime:
            runtime_install.switch(here.runtime, change.runtime.previous)
    except OSError as error:
        raise SettingsError(f"the previous settings cannot be restored: {error}") from error
    if not {RAY_NODE, VLLM_SERVER}.isdisjoint(kept["roles"]):
        _have_systemd_follow(kept, here)
    return change


def accept(place: Place | None = None) -> bool:
    """Record that the settings in use served, and let go of those before them. Returns whether anything changed."""
    here = place or Place()
    verified = _applied(here)
    known = records.read(here.at(records.SETTINGS)) or {}
    changed = known.get("verified") != verified
    if changed:
        records.write(here.at(records.SETTINGS), {"verified": verified, "at": records.now()})
    folder = here.record.parent
    if folder.exists():
        records.remove(
            here.record
        )  # without it nothing is kept; a kill between the two leaves a folder that means nothing
        shutil.rmtree(folder)
        changed = True
    return changed


def difference(place: Place | None = None) -> SettingsChange:
    """How this host differs from the settings that are kept: false where none are, or where nothing was changed yet."""
    here = place or Place()
    kept = previous_settings.read(here.record)
    if kept is None:
        return SettingsChange()
    return compare(kept, here.record.parent, here.at, runtime_install.current(here.runtime))


def would_keep(served: bool, place: Place | None = None) -> bool:
    """Whether :func:`keep` would keep anything that is not kept yet."""
    here = place or Place()
    return previous_settings.read(here.record) is None and bool(_roles_to_keep(here, served))


def would_accept(place: Place | None = None) -> bool:
    """Whether :func:`accept` would change anything."""
    here = place or Place()
    known = records.read(here.at(records.SETTINGS)) or {}
    return here.record.parent.exists() or known.get("verified") != _applied(here)


def environment_to_keep() -> str | None:
    """The serving environment that a rollback would go back to: no installation may remove it."""
    kept = previous_settings.read()
    return None if kept is None else kept["runtime"]


def _roles_to_keep(here: Place, served: bool) -> list[str]:
    verified = (records.read(here.at(records.SETTINGS)) or {}).get("verified") or {}
    return sorted(role for role, inputs in _applied(here).items() if served or verified.get(role) == inputs)


def _applied(here: Place) -> dict[str, str]:
    """Digest of the inputs of each role that was applied here."""
    stored = {role: records.read(here.manifest(role)) for role in MANAGED}
    return {role: manifests.parse(record)["inputs"] for role, record in stored.items() if record is not None}


def _keep_in(folder: Path, run: str, roles: Collection[str], here: Place) -> Previous:
    files: dict[str, KeptFile | None] = {}
    for role in roles:
        for name in (*MANAGED[role], str(records.MANIFEST / f"{role}.json")):
            files[name] = _copy(here.at(name), folder / str(len(files)))
    kept: Previous = {
        "run": run,
        "at": records.now(),
        "roles": sorted(roles),
        "runtime": runtime_install.current(here.runtime) if SERVING_RUNTIME in roles else None,
        "files": files,
        "enabled": _enabled([unit for role in roles for unit in UNITS.get(role, ())], here),
    }
    records.write(folder / here.record.name, kept, mode=0o600)
    return kept


def _copy(source: Path, target: Path) -> KeptFile | None:
    """Keep a file with its mode and owner; None where there is none."""
    try:
        about = source.stat()
    except FileNotFoundError:
        return None
    if about.st_size < _LINKED_FROM or not _linked(source, target):
        records.replace(target, source.read_bytes(), about.st_mode & 0o7777, (about.st_uid, about.st_gid))
    return {
        "copy": target.name,
        "mode": about.st_mode & 0o7777,
        "uid": about.st_uid,
        "gid": about.st_gid,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
    }


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system
        return False
    return True


def _restore_file(path: Path, kept: KeptFile | None, folder: Path) -> None:
    if kept is None:
        records.remove(path)
        return
    content = (folder / kept["copy"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != kept["sha256"]:
        raise SettingsError(f"{folder / kept['copy']}, the copy of {path}, is damaged", "ansible-playbook site.yml")
    path.parent.mkdir(parents=True, exist_ok=True)
    records.replace(path, content, kept["mode"], (kept["uid"], kept["gid"]))


def _enabled(units: Sequence[str], here: Place) -> dict[str, bool]:
    if not units:
        return {}
    shown = show(units, ["UnitFileState"], run=here.run, deadline=COMMAND_DEADLINE)
    return {unit: shown.get(unit, {}).get("UnitFileState") == "enabled" for unit in units}


def _have_systemd_follow(kept: Previous, here: Place) -> None:
    """Units as the restored files have them: read again, started at boot or not, and free to start at once.

    A unit that crashed until systemd refused to start it again, as with a broken environment, has to be let start.
    """
    _systemctl(here, "daemon-reload")
    now = _now_enabled(kept, here)
    for unit, enabled in kept["enabled"].items():
        if now.get(unit) != enabled:
            _systemctl(here, "enable" if enabled else "disable", unit)
        if enabled:  # others need not be loaded, and systemd has nothing to reset then
            _systemctl(here, "reset-failed", unit)
    if RAY_NODE in kept["roles"]:
        # Nothing of Ray runs here at this moment. Always: the restoration before may have been killed at this.
        _systemctl(here, "restart", SOCKET)
        if kept["enabled"].get(tunnel.UNIT):
            _systemctl(here, "restart", tunnel.UNIT)
        if kept["enabled"].get(tunnel.UNIT) or now.get(tunnel.UNIT):
            # It looks at once, not when its watch does.
            _systemctl(here, "try-reload-or-restart", FILTER)


def _now_enabled(kept: Previous, here: Place) -> dict[str, bool]:
    try:
        return _enabled(list(kept["enabled"]), here)
    except SystemctlError as error:
        raise SettingsError(str(error)) from error


def _systemctl(here: Place, *arguments: str) -> None:
    done = here.run(["systemctl", *arguments], COMMAND_DEADLINE)
    if not done.ok:
        reason = f"no answer within {COMMAND_DEADLINE:g} s" if done.timed_out else done.stderr.strip()
        raise SettingsError(f"systemctl {' '.join(arguments)}: {reason}", f"systemctl {' '.join(arguments)}")
