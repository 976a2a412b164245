"""What an NVIDIA driver on a host is and does: parsers for its tools' output, and one read-only look at all of it.

Every parser takes text and returns data. ``driver_state`` is the only function here that looks at the machine; it
changes nothing, and each command that it starts is ended at a deadline, so that a driver that hangs becomes a finding.

Every survey sends this file to every host: what is imported here costs each of them processor time at every run.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Run = Callable[[Sequence[str], float], "Answer"]

# The parts of a driver's state that cost more than all others together (a look into every process, one through the kernel's
# messages since boot), and that no plan depends on: a gate, the metrics and whoever looks at one host ask for them.
COSTLY = ("holders", "xids")
DPKG_FORMAT = "${db:Status-Want}\t${db:Status-Status}\t${Package}\t${Version}\n"
PACKAGE_PATTERNS = (
    "nvidia-*",
    "libnvidia-*",
    "libcuda1",
    "libcudadebugger1",
    "cuda-drivers*",
    "firmware-nvidia-*",
    "linux-modules-nvidia-*",
    "nvlsm",
)
# How the paragraphs of these packages begin in dpkg's table.
_PACKAGE_STARTS = tuple(f"Package: {name}\n".replace("*\n", "") for name in PACKAGE_PATTERNS)
# Patterns are compiled when they are first used, and kept by re: many hosts need but a few of them.
_NOT_THE_DRIVER = (
    r"(lib)?nvidia-(container|ctk|cuda|cudnn|cg|docker|nsight|profiler|visual|support"
    r"|installer|legacy|egl-wayland|vaapi|ml-dev)"
)
# Versioned on their own, whatever the driver's version is (Debian and NVIDIA alike).
_OWN_VERSIONS = (
    r"nvidia-(settings|xconfig|modprobe|persistenced|driver-pinning|alternative|egl|suspend)"
    r"|libnvidia-egl"
)
_FABRIC = r"nvidia-fabricmanager|libnvidia-nscq|libnvsdm|nvidia-imex|nvlsm"
_DRIVER_VERSION = r"\d{3}\.\d{2,3}(?:\.\d{2})?"
_USER_LIBRARY = r"libnvidia-ml\.so\.(\d{3}\.\d{2,3}(?:\.\d{2})?)$"
_LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "usr/lib/aarch64-linux-gnu/nvidia/current",
)
_XID = (
    r"NVRM: (?P<kind>Xid) \(PCI:(?P<xdev>[^)]+)\): (?P<xcode>\d+)"
    r"|(?P<skind>SXid) \(PCI:(?P<sdev>[^)]+)\): (?P<scode>\d+)"
)
# Read from the survey's point of view: quick to answer, and understood by every driver since 450.
_GPU_FIELDS = ("index", "uuid", "name", "memory.total", "persistence_mode", "pci.bus_id", "driver_version")
_UNIT = r"(?m)/([\w@.:-]+\.service)(?:/|$)"
_UNUSUAL = ("half-installed", "half-configured", "unpacked", "triggers-awaited", "triggers-pending")


class Answer(NamedTuple):
    """What a command gave: ``returncode`` is None when it was not found or was ended at its deadline."""

    returncode: int | None
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def run_command(argv: Sequence[str], deadline: float) -> Answer:
    """Run ``argv`` for at most ``deadline`` seconds; a child that cannot be killed (stuck in the driver) is left."""
    start = time.monotonic()
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return Answer(None, stderr=str(error))
    try:
        out, err = child.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        _end(child)
        return Answer(None, timed_out=True, seconds=time.monotonic() - start)
    return Answer(
        child.returncode,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
        seconds=time.monotonic() - start,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    for stream in (child.stdout, child.stderr):
        if stream:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)


def upstream(version: str) -> str:
    """The driver version inside a Debian package version: ``1:550.127.05-0ubuntu1`` → ``550.127.05``."""
    return version.split(":", 1)[-1].rsplit("-", 1)[0]


def is_driver_version(text: str) -> bool:
    """Whether ``text`` is a full driver version such as ``550.127.05`` or ``580.95`` (not a branch, not a revision)."""
    return bool(re.fullmatch(_DRIVER_VERSION, text))


def has_own_version(name: str) -> bool:
    """Whether a package is versioned apart from the driver, so that its version says nothing about it."""
    return bool(re.match(_OWN_VERSIONS, name))


def version_key(version: str) -> tuple[int, ...]:
    """A key that orders driver versions: ``550.90.07`` before ``550.127.05`` before ``580.65.06``."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def parse_proc_version(text: str) -> str | None:
    """The loaded module's version from ``/proc/driver/nvidia/version``; None when the text has none."""
    for line in text.splitlines():
        if line.startswith("NVRM version:"):
            found = re.search(_DRIVER_VERSION, line)
            return found.group(0) if found else None
    return None


def parse_library_version(names: Iterable[str]) -> str | None:
    """The user-space version from library file names (``libnvidia-ml.so.550.127.05``); the newest of several."""
    versions = [found.group(1) for name in names if (found := re.search(_USER_LIBRARY, name))]
    return max(versions, key=version_key, default=None)


def parse_dpkg(text: str) -> dict[str, dict[str, Any]]:
    """Packages from ``dpkg-query`` lines ``want<TAB>status<TAB>package<TAB>version``.

    Removed packages and those that are not part of a driver (container toolkit, CUDA libraries) are left out.
    ``broken`` is true for a package that dpkg left half-way.
    """
    packages: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        want, status, name, version = (line.split("\t") + [""] * 4)[:4]
        if (status == "installed" or status in _UNUSUAL) and not re.match(_NOT_THE_DRIVER, name):
            packages[name.split(":")[0]] = {"version": version, "hold": want == "hold", "broken": status != "installed"}
    return packages


def status_lines(text: str) -> str:
    """The driver's packages in dpkg's table (``/var/lib/dpkg/status``) as dpkg-query lists them in ``DPKG_FORMAT``."""
    lines = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(_PACKAGE_STARTS):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
            want, _flag, status = (fields.get("Status", "").split() + [""] * 3)[:3]
            lines.append(f"{want}\t{status}\t{fields['Package']}\t{fields.get('Version', '')}\n")
    return "".join(lines)


def driver_versions(packages: dict[str, dict[str, Any]]) -> list[str]:
    """Upstream versions among the packages that make up the driver, oldest first; fabric manager and tools apart."""
    found = {
        upstream(about["version"])
        for name, about in packages.items()
        if not re.match(_OWN_VERSIONS, name) and not re.match(_FABRIC, name)
    }
    return sorted((version for version in found if is_driver_version(version)), key=version_key)


def parse_csv(text: str) -> list[dict[str, str]]:
    """Rows of ``nvidia-smi --query-gpu=… --format=csv,nounits``, by field name without its unit."""
    import csv

    rows = list(csv.reader(text.strip().splitlines(), skipinitialspace=True))
    if not rows:
        return []
    fields = [re.sub(r" \[.*\]$", "", field) for field in rows[0]]
    return [dict(zip(fields, row, strict=False)) for row in rows[1:] if len(row) == len(fields)]


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """GPUs from the survey's query; memory in MiB, None where the driver cannot tell."""
    return [
        {
            "index": int(row["index"]),
            "name": row["name"],
            "uuid": row["uuid"],
            "memory_mib": int(row["memory.total"]) if row["memory.total"].isdigit() else None,
            "pci": row.get("pci.bus_id"),
            "persistence": row.get("persistence_mode") == "Enabled",
        }
        for row in parse_csv(text)
        if row.get("index", "").isdigit()
    ]


def nvswitches(root: Path = Path("/")) -> int:
    """How many NVSwitches this host has: NVIDIA's PCI bridges of class 0x0680. They need fabric manager."""
    return sum(
        1
        for device in (root / "sys/bus/pci/devices").glob("*")
        if _text(device / "vendor").strip() == "0x10de" and _text(device / "class").startswith("0x0680")
    )


def parse_fabric_manager(text: str) -> str | None:
    """Version from ``nv-fabricmanager --version`` (``Fabric Manager version is : 550.127.05``)."""
    found = re.search(_DRIVER_VERSION, text)
    return found.group(0) if found else None


def parse_kmsg(text: str, boot: float) -> tuple[list[tuple[float, str]], bool]:
    """Kernel messages as (unix time, message) from ``/dev/kmsg`` records, and whether the first ones were lost.

    ``boot`` is the unix time of the boot. A record is ``priority,sequence,microseconds,flags;message``.
    """
    messages: list[tuple[float, str]] = []
    first: int | None = None
    for line in text.splitlines():
        head, mark, message = line.partition(";")
        fields = head.split(",")
        if not mark or len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            continue
        first = int(fields[1]) if first is None else first
        messages.append((boot + int(fields[2]) / 1e6, message))
    return messages, bool(first)


def parse_journal(text: str) -> list[tuple[float, str]]:
    """Messages as (unix time, message) from ``journalctl -o short-unix``."""
    lines = (line.split(" ", 1) for line in text.splitlines())
    return [(float(parts[0]), parts[1]) for parts in lines if len(parts) == 2 and re.fullmatch(r"\d+\.\d+", parts[0])]


def parse_xids(messages: Iterable[tuple[float, str]]) -> list[dict[str, Any]]:
    """Xid and SXid events by kind and code: ``{"kind", "code", "count", "last" (RFC 3339), "devices", "message"}``."""
    events: dict[tuple[str, int], dict[str, Any]] = {}
    for when, message in sorted(messages):
        found = re.search(_XID, message)
        if not found:
            continue
        kind = found["kind"] or found["skind"]
        code = int(found["xcode"] or found["scode"])
        event = events.setdefault((kind, code), {"kind": kind, "code": code, "count": 0, "devices": []})
        device = found["xdev"] or found["sdev"]
        event["count"] += 1
        event["devices"] = sorted({*event["devices"], device})
        event["message"] = message[found.start() :].strip()
        event["last"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(when)))
    return [events[key] for key in sorted(events)]


def smi_failure(answer: Answer) -> str | None:
    """Why nvidia-smi gave no figures, in its own words where it had any; None when it worked."""
    if answer.ok:
        return None
    if answer.timed_out:
        return f"nvidia-smi gave no answer within {answer.seconds:.0f} s: the driver or a GPU hangs"
    said = (answer.stdout.strip() or answer.stderr.strip()).splitlines()
    return said[0] if said else f"nvidia-smi ended with {answer.returncode}"


def installed(root: Path = Path("/"), run: Run = run_command, deadline: float = 10.0) -> dict[str, dict[str, Any]]:
    """The packages of the driver that dpkg knows here, as ``parse_dpkg`` gives them.

    Read from dpkg's own table, which is a tenth of the work of asking dpkg-query. A dpkg that is at work, or was stopped,
    keeps its latest news in files beside the table; then, and where there is no table, dpkg-query is asked.
    """
    text = "" if dpkg_interrupted(root) else _text(root / "var/lib/dpkg/status")
    if text:
        return parse_dpkg(status_lines(text))
    return parse_dpkg(run(["dpkg-query", "-W", "-f", DPKG_FORMAT, *PACKAGE_PATTERNS], deadline).stdout)


def driver_state(
    *, deadline: float = 5.0, root: Path = Path("/"), run: Run = run_command, also: Collection[str] = COSTLY
) -> dict[str, Any]:
    """All that a host knows about its NVIDIA driver, without changing anything.

    Takes as long as the slowest of nvidia-smi, dpkg-query and fabric manager's version, and never longer than
    ``deadline`` seconds plus half a second. Needs root to see other users' holders. ``also`` names those of ``COSTLY``
    that are wanted; the others are left out.

    Keys: ``packages`` {name: {version, hold, broken}}, ``package_versions``, ``package_version`` (None unless all
    agree), ``userspace_version``, ``loaded_version``, ``fabric_manager`` ({package, package_version, version, active}
    or None), ``nvswitches`` (how many), ``persistence``, ``holders`` [{pid, command, unit, devices}], ``modules``
    {name: {refcount, used_by}}, ``refcount``, ``gpus``, ``xids``, ``pending_reboot``, ``pending_reboot_packages``,
    ``dpkg_interrupted``, ``smi_error``.
    """
    query = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,nounits"]
    smi = meanwhile(lambda: run(query, deadline))
    looks: dict[str, Callable[[], Any]] = {"holders": lambda: holders(root), "xids": lambda: _xids(root, run, deadline)}
    costly = {name: meanwhile(looks[name]) for name in COSTLY if name in also}
    packages = installed(root, run, deadline)
    fabric = _fabric_manager(packages, run, deadline)
    loaded_modules = modules(root)
    smi_answer = smi()
    gpus = parse_gpus(smi_answer.stdout) if smi_answer.ok else []
    versions = driver_versions(packages)
    loaded = loaded_version(root)
    pending = _lines(root / "run/reboot-required.pkgs")
    return {
        "packages": packages,
        "package_versions": versions,
        "package_version": versions[0] if len(versions) == 1 else None,
        "userspace_version": _userspace_version(root),
        "loaded_version": loaded,
        "fabric_manager": fabric,
        "nvswitches": nvswitches(root),
        "persistence": all(gpu["persistence"] for gpu in gpus) if gpus else None,
        "modules": loaded_modules,
        "refcount": loaded_modules.get("nvidia", {}).get("refcount"),
        "gpus": gpus,
        "pending_reboot": (root / "run/reboot-required").exists(),
        "pending_reboot_packages": sorted(set(pending)),
        "dpkg_interrupted": dpkg_interrupted(root) or any(about["broken"] for about in packages.values()),
        "smi_error": smi_failure(smi_answer)
        if packages or loaded or smi_answer.returncode is not None or smi_answer.timed_out
        else None,
        **{name: result() for name, result in costly.items()},
    }


def meanwhile(look: Callable[[], Any]) -> Callable[[], Any]:
    """Begin ``look`` in a thread of its own; what is returned waits for it, and gives or raises what it gave or raised.

    A pool of ``concurrent.futures`` would do, but importing that takes longer than most looks.
    """
    given: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            given.append(look())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def result() -> Any:
        thread.join()
        if raised:
            raise raised[0]
        return given[0]

    return result


def dpkg_interrupted(root: Path = Path("/")) -> bool:
    """Whether dpkg was stopped half-way and asks for ``dpkg --configure -a``."""
    updates = root / "var/lib/dpkg/updates"
    return updates.is_dir() and any(entry.name.isdigit() for entry in updates.iterdir())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).splitlines() if line]


def loaded_version(root: Path = Path("/")) -> str | None:
    """The version of the kernel module that is loaded now, as the kernel tells it; None when none is."""
    proc = parse_proc_version(_text(root / "proc/driver/nvidia/version"))
    return proc or _text(root / "sys/module/nvidia/version").strip() or None


def _userspace_version(root: Path) -> str | None:
    names: list[str] = []
    for folder in _LIBRARY_FOLDERS:
        try:
            names += [name for name in os.listdir(root / folder) if name.startswith("libnvidia-ml.so.")]
        except OSError:
            continue
    return parse_library_version(names)


def _fabric_manager(packages: dict[str, dict[str, Any]], run: Run, deadline: float) -> dict[str, Any] | None:
    names = [name for name in packages if name.startswith("nvidia-fabricmanager") and not name.endswith("-dev")]
    if not names:
        return None
    version = run(["nv-fabricmanager", "--version"], deadline)
    active = run(["systemctl", "is-active", "nvidia-fabricmanager.service"], deadline)
    return {
        "package": names[0],
        "package_version": upstream(packages[names[0]]["version"]),
        "version": parse_fabric_manager(version.stdout),
        "active": active.stdout.strip() == "active",
    }


def modules(root: Path = Path("/")) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted((root / "sys/module").glob("*")):
        if folder.name.startswith("nvidia") or folder.name in ("gdrdrv", "nvidia_fs", "nouveau"):
            count = _text(folder / "refcnt").strip()
            used_by = sorted(entry.name for entry in (folder / "holders").glob("*"))
            found[folder.name] = {"refcount": int(count) if count.isdigit() else None, "used_by": used_by}
    return found


def holders(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Processes with an NVIDIA device open or mapped, this one's own children left to the caller to judge."""
    found = []
    for folder in (root / "proc").glob("[0-9]*"):
        devices = _devices(folder)
        if devices:
            command = _text(folder / "cmdline").replace("\0", " ").strip() or _text(folder / "comm").strip()
            unit = re.search(_UNIT, _text(folder / "cgroup"))
            found.append(
                {
                    "pid": int(folder.name),
                    "command": command[:200],
                    "unit": unit.group(1) if unit else None,
                    "devices": sorted(devices),
                }
            )
    return sorted(found, key=lambda holder: holder["pid"])


def _devices(process: Path) -> set[str]:
    found = set()
    try:
        for entry in os.scandir(process / "fd"):
            try:
                target = os.readlink(entry.path)
            except OSError:
                continue
            if target.startswith("/dev/nvidia") or target.startswith("/dev/gdrdrv"):
                found.add(target)
        with open(process / "maps", encoding="utf-8", errors="replace") as maps:
            found |= {line.split()[-1] for line in maps if "/dev/nvidia" in line}
    except OSError:
        pass
    return found


def _xids(root: Path, run: Run, deadline: float) -> list[dict[str, Any]]:
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    records = _kmsg(root / "dev/kmsg").splitlines()
    # Of thousands of records the first, which tells whether older ones were lost, and those that matter.
    messages, lost = parse_kmsg("\n".join([*records[:1], *(record for record in records[1:] if "Xid" in record)]), boot)
    if messages and not lost:
        return parse_xids(messages)
    kept = run(["journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-unix", "-g", "Xid"], deadline)
    return parse_xids(parse_journal(kept.stdout) or messages)


def _kmsg(path: Path) -> str:
    """What the kernel's message buffer holds now; empty where it may not be read, or is not the kernel's own device."""
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return ""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    chunks: list[bytes] = []
    try:
        while True:
            try:
                chunk = os.read(handle, 65536)
            except BrokenPipeError:
                continue
            except OSError:
                break
            if not chunk:
                break
            chunks.append(chunk)
    finally:
        os.close(handle)
    return b"".join(chunks).decode("utf-8", "replace")
