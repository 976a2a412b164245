"""Root's part: the folder made once, and the worker run as ``lockstep-model.service``, looked after in short calls.

The unit is transient and under whatever serves: it goes on when the connection or the controller is lost, ends by itself at its
deadline, and may write nothing but the folder of models. Root opens nothing in there: it reads the unit's answer from /run, as
``core/untrusted.py`` reads what the user ``lockstep`` may have put there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

from ..core import records, systemd, typed
from ..core.codes import as_json
from ..core.commands import Run, run_command
from . import request as exchange
from .codes import Result
from .request import Answer, Request
from .worker import ANSWER, PROGRESS, TOKEN
from .worker import REQUEST as REQUEST_NAME

UNIT = "lockstep-model.service"
USER = "lockstep"
RUNTIME = Path("/run/lockstep-model")
"""Of the user ``lockstep``."""
REQUESTS = Path("/run/lockstep-model-request")
"""Of root: what is asked, with the hub's token; both reach the unit as credentials."""
WORKER = ("/usr/bin/python3", "-I", "-S", "-B", "/opt/lockstep/lib/lockstep/core/isolated.py", "lockstep.model.worker")
UNPREPARED = "this host has not been prepared yet, so no model was staged: run site.yml"
COMMAND_DEADLINE = 20.0
_PAUSE = 0.5
_PROPERTIES = (
    f"User={USER}",
    f"Group={USER}",
    "RuntimeDirectory=lockstep-model",
    "RuntimeDirectoryPreserve=yes",
    "RuntimeDirectoryMode=0750",
    # Under what serves.
    "Nice=19",
    "CPUWeight=10",
    "IOWeight=10",
    "IOSchedulingClass=idle",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "InaccessiblePaths=-/run/dbus",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectProc=invisible",
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictSUIDSGID=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "KeyringMode=private",
    "UMask=0027",
)


@dataclasses.dataclass(frozen=True)
class Call:
    """One short call.

    Attributes:
        request: what is asked.
        token: of the hub; None for none.
        limit: seconds after which the unit ends.
        seconds: that this call may wait.
        ticket: of the unit that an earlier call began; empty in the first one.
    """

    request: Request
    token: str | None = None
    limit: float = 14400.0
    seconds: float = 15.0
    ticket: str = ""


@dataclasses.dataclass(frozen=True)
class Called:
    """What a call found: the answer (``deadline`` while it goes on), and the ticket for the next call."""

    answer: Answer
    ticket: str


def properties(call: Call, writes: bool) -> list[str]:
    """The unit's settings. What only reads may write nothing."""
    folder = call.request.folder
    return [
        *_PROPERTIES,
        f"RuntimeMaxSec={call.limit:.0f}",
        f"LoadCredential={REQUEST_NAME}:{REQUESTS / REQUEST_NAME}",
        *([f"LoadCredential={TOKEN}:{REQUESTS / TOKEN}"] if call.token else []),
        *([f"RequiresMountsFor={folder}"] if folder else []),
        *([f"ReadWritePaths={folder}"] if writes else []),
    ]


def command(call: Call, writes: bool) -> list[str]:
    """What starts the unit."""
    settings = [f"--property={each}" for each in properties(call, writes)]
    return ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", *settings, "--", *WORKER]


def call(asked: Call, run: Run = run_command, sleep: Callable[[float], None] = time.sleep) -> Called:
    """Begin what is asked, or go on with it, and wait for its end for a few seconds."""
    ends = time.monotonic() + asked.seconds
    ticket = asked.ticket
    if not ticket:
        ticket, busy = _attach(asked, run)
        if busy:
            return Called(Answer(Result.DEADLINE, busy), "")
    if not ticket:
        started = _start(asked, run)
        if isinstance(started, Answer):
            return Called(started, "")
        ticket = started
    while _active(run):
        if time.monotonic() >= ends:
            return Called(Answer(Result.DEADLINE, _progress()), ticket)
        sleep(_PAUSE)
    return Called(_answer(ticket), ticket)


def make_folder(folder: Path, check: bool = False, user: str = USER) -> tuple[bool, Answer | None]:
    """Have a folder of models that belongs to ``user``. Returns whether it was (or would be) made, and why it cannot be.

    Its parents may not be the user's: he could put a link in its place while root makes it.
    """
    try:
        about = pwd.getpwnam(user)
    except KeyError:
        return True, None if check else Answer(Result.FAILED, f"there is no user {user}: run site.yml first")
    for parent in folder.parents:
        if parent.exists() and os.lstat(parent).st_uid == about.pw_uid and about.pw_uid != 0:
            why = f"model_folder {folder} is below {parent}, which belongs to {user}: name a folder below one of root's"
            return False, Answer(Result.NOT_OURS, why)
    made = not os.path.lexists(folder)
    if made and check:
        return True, None
    if made:
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.mkdir(mode=0o750)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False, Answer(Result.NOT_OURS, f"model_folder {folder} is a link or no folder: name the folder itself")
    try:
        if made and os.geteuid() == 0:
            os.fchown(handle, about.pw_uid, about.pw_gid)
        found = os.fstat(handle)
    finally:
        os.close(handle)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == about.pw_uid:
        return made, None
    why = f"model_folder {folder} belongs to user {found.st_uid}: name one for staging alone, which is made where it is missing"
    return False, Answer(Result.NOT_OURS, why)


def prepared(user: str = USER) -> bool:
    """Whether gpu_host has been here: without its user and library nothing can be asked."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return (records.LIB / "lockstep/model").is_dir()


def in_use(folder: Path, proc: Path = Path("/proc")) -> set[str]:
    """Names of the models below ``folder`` of which a process has a file open or mapped."""
    found: set[str] = set()
    prefix = f"{folder}/"
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        paths: list[str] = []
        with contextlib.suppress(OSError):
            for name in os.listdir(proc / entry / "fd"):
                with contextlib.suppress(OSError):
                    paths.append(os.readlink(proc / entry / "fd" / name))
        with contextlib.suppress(OSError):
            text = (proc / entry / "maps").read_text(encoding="utf-8", errors="replace")
            paths += [line.partition("/")[2] and f"/{line.partition('/')[2]}" for line in text.splitlines()]
        found |= {path.removeprefix(prefix).split("/")[0] for path in paths if path.startswith(prefix)}
    return found


def configured(folder: Path) -> set[str]:
    """Names of the models below ``folder`` that an engine of this host is configured with, or would be rolled back to."""
    names: set[str] = set()
    for path in (records.ENGINE_CONFIG, *_kept_engine()):
        with contextlib.suppress(records.RecordError):
            model = str((records.read(path) or {}).get("model", ""))
            if model.startswith(f"{folder}/"):
                names.add(model.removeprefix(f"{folder}/").split("/")[0])
    return names


def _kept_engine() -> list[Path]:
    """Where the engine's settings are kept that a wave under way would roll back to."""
    with contextlib.suppress(records.RecordError, AttributeError, KeyError, TypeError):
        kept = (records.read(records.PREVIOUS) or {}).get("files", {}).get(str(records.ENGINE_CONFIG))
        return [records.PREVIOUS.parent / str(kept["copy"])] if kept else []
    return []


def _attach(asked: Call, run: Run) -> tuple[str, str]:
    """The ticket of a unit that does just what is asked; and why another has to be waited for."""
    if not _active(run):
        return "", ""
    try:
        record = json.loads((REQUESTS / REQUEST_NAME).read_text(encoding="utf-8"))
        ticket = str(record.pop("id"))
    except (OSError, ValueError, KeyError):
        return "", f"{UNIT} runs, and nobody knows what for"
    if record == as_json(asked.request):
        return ticket, ""
    return "", f"{UNIT} is at work on another request: {record.get('verb')} {record.get('name')}"


def _start(asked: Call, run: Run) -> str | Answer:
    ticket = secrets.token_hex(8)
    REQUESTS.mkdir(mode=0o700, exist_ok=True)
    for name, text in (
        (REQUEST_NAME, json.dumps({**as_json(asked.request), "id": ticket})),
        (TOKEN, asked.token or ""),
    ):
        path = REQUESTS / name
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
    started = run(
        command(asked, asked.request.verb.value in ("stage", "prune") and not asked.request.dry), COMMAND_DEADLINE
    )
    if not started.ok:
        return Answer(
            Result.FAILED, f"{UNIT} could not be started: {started.stderr.strip() or 'systemd-run timed out'}"
        )
    return ticket


def _active(run: Run) -> bool:
    """Whether the unit runs. Where systemctl gives no answer, nothing is known to run."""
    try:
        shown = systemd.show([UNIT], ["ActiveState"], run=run, deadline=COMMAND_DEADLINE)
    except systemd.SystemctlError:
        return False
    return shown.get(UNIT, {}).get("ActiveState") in (*systemd.RUNNING, "deactivating")


def _progress() -> str:
    try:
        record = records.read(RUNTIME / PROGRESS)
    except records.RecordError:
        record = None
    return str((record or {}).get("text", "it has begun"))[:200]


def _answer(ticket: str) -> Answer:
    try:
        record = records.read(RUNTIME / ANSWER)
        if record is not None and record.get("id") == ticket:
            return exchange.answer(record["answer"])
        why = "it ended without an answer: it was stopped, or did not end in time"
    except (records.RecordError, typed.BadAnswer, KeyError) as error:
        why = f"its answer cannot be used: {error}"
    finally:
        for name in (REQUEST_NAME, TOKEN):
            (REQUESTS / name).unlink(missing_ok=True)
    return Answer(Result.FAILED, f"{UNIT}: {why}")
