"""Start this host's ranks of a gate under a deadline, and read back what they reported.

Used by the gate modules on one host, and by ``ray_launcher`` on each host of a replica.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import itertools
import json
import os
import pwd
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ...core import command_parts, deadline, evidence, records, untrusted
from ...driver import memory as gpu_memory
from ...ray.ports import RENDEZVOUS
from ..wire import Watch, Wire
from . import events
from .events import E
from .job import Job

PASSED_ON = ("NCCL_", "GLOO_", "TORCH_", "CUDA_", "UCX_", "OMP_", "LD_LIBRARY_PATH", "FI_")
RAY_ENVIRONMENT = records.ETC / "ray.env"
LOG_LIMIT = 1 << 20
MOST_LOGS = 64


@dataclasses.dataclass(frozen=True)
class Launch:
    """How this host's ranks are started.

    Attributes:
        evidence: by part, the folder for evidence of a hang or failure of it; made only then.
        environment: variables for the ranks on top of the fixed ones.
        user: run the ranks as this user.
        python: interpreter with torch.
        library: folder that holds the package ``lockstep``.
    """

    evidence: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    user: str | None = None
    python: str = str(records.RUNTIME / "bin" / "python")
    library: str = str(records.LIB)


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of one host's ranks.

    Attributes:
        host: its inventory name.
        first: its first rank.
        here: number of its ranks.
        status: as ``deadline.Outcome`` has it, or ``lost`` when the host did not answer.
        seconds: wall time.
        events: what the ranks reported, in order.
        evidence: paths of evidence files on the host that ran the gate.
        tail: end of the ranks' standard error.
        leaked_processes: processes that could not be ended.
        leaked_memory: processes that came with the ranks and hold GPU memory after them.
        limit_at: Unix time, by this host's clock, of the first part's deadline.
        wire: what this host's links are and carried, and what NCCL said of them.
    """

    host: str
    first: int
    here: int
    status: Literal["done", "failed", "timeout", "ended", "lost"]
    seconds: float = 0.0
    events: tuple[events.Event, ...] = ()
    evidence: tuple[str, ...] = ()
    tail: str = ""
    leaked_processes: tuple[str, ...] = ()
    leaked_memory: tuple[str, ...] = ()
    limit_at: float = 0.0
    wire: Wire | None = None

    @property
    def ranks(self) -> range:
        """The host's ranks."""
        return range(self.first, self.first + self.here)

    def of(self, kind: type[E]) -> list[E]:
        """All events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


TAIL = 2000


def run(job: Job, launch: Launch, existing_gpu_processes: Sequence[gpu_memory.Holder] | None = None) -> Report:
    """Run this host's ranks to their end, at most the seconds of all parts plus ``deadline.EXTRA`` from now.

    Args:
        job: what to do.
        launch: how.
        existing_gpu_processes: who holds GPU memory already; looked up when None.
    """
    return begin(job, launch, existing_gpu_processes).wait()


def begin(job: Job, launch: Launch, existing_gpu_processes: Sequence[gpu_memory.Holder] | None = None) -> RunningRanks:
    """Start as ``run`` does and return at once; ``wait`` must be called on the result."""
    before = gpu_memory.holders() if existing_gpu_processes is None else list(existing_gpu_processes)
    scratch = scratch_folder(launch.user)
    limit_at = time.time() + job.parts[0].seconds
    child = deadline.start(
        [launch.python, "-m", "lockstep.gates.ranks.main"],
        [command_parts.Part(part.seconds, launch.evidence.get(part.name)) for part in job.parts],
        env=_environment(job, scratch.path, launch),
        cwd=scratch.path,
        input=json.dumps(dataclasses.asdict(job)),
        user=launch.user,
    )
    return RunningRanks(job, child, scratch, launch.evidence, before, limit_at)


@dataclasses.dataclass(frozen=True)
class Scratch:
    """A folder that belongs to the user of the ranks: what he puts in its place, or into it, is read through ``handle``."""

    path: Path
    handle: int

    def remove(self) -> None:
        """All of it; links in it are not followed."""
        os.close(self.handle)
        shutil.rmtree(self.path, ignore_errors=True)


def scratch_folder(user: str | None) -> Scratch:
    """A new one; of the caller where ``user`` is None."""
    path = Path(tempfile.mkdtemp(prefix="lockstep-gate-"))
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if user is not None:
        account = pwd.getpwnam(user)
        os.fchown(handle, account.pw_uid, account.pw_gid)
    return Scratch(path, handle)


class RunningRanks:
    """Ranks under way."""

    def __init__(
        self,
        job: Job,
        child: deadline.Running,
        scratch: Scratch,
        evidence: Mapping[str, Path],
        before: Sequence[gpu_memory.Holder],
        limit_at: float,
    ) -> None:
        self._job = job
        self._child = child
        self._scratch = scratch
        self._evidence = evidence
        self._before = before
        self._limit_at = limit_at
        self._watch = Watch()

    def end(self) -> None:
        """End the ranks at once, as when a rank on another host died. Any thread may call."""
        self._child.end()

    def wait(self) -> Report:
        """Wait for the end, put the evidence together and remove everything else."""
        try:
            outcome = self._child.wait()
            saved = list(outcome.evidence)
            folder = self._evidence.get(self._job.parts[outcome.part].name)
            if outcome.status != "done" and folder is not None:
                saved += _keep_logs(self._scratch, folder)
            seen = self._watch.end("\n".join(text for _name, text in _logs(self._scratch)))
        finally:
            self._scratch.remove()
        return Report(
            self._job.host,
            self._job.first,
            self._job.here,
            outcome.status,
            outcome.seconds,
            tuple(events.parse(outcome.stdout)),
            tuple(saved),
            outcome.stderr[-TAIL:],
            outcome.left,
            tuple(str(holder) for holder in gpu_memory.left(self._before)),
            self._limit_at,
            seen,
        )


def free_port(address: str) -> int:
    """A port of the gates' range on which ``address`` can listen now.

    Raises:
        OSError: the address is not of this host, or every port is taken.
    """
    for port in random.sample(RENDEZVOUS, len(RENDEZVOUS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == 99:  # EADDRNOTAVAIL
                    raise
                continue
            return port
    raise OSError(f"no free port on {address} among {RENDEZVOUS.start}-{RENDEZVOUS.stop - 1}")


def ray_environment(path: Path = RAY_ENVIRONMENT) -> dict[str, str]:
    """The variables of the Ray unit that decide how NCCL, gloo and CUDA behave."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs if name.strip().startswith(PASSED_ON)}


def _environment(job: Job, scratch: Path, launch: Launch) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    fixed = {
        "PATH": os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "PYTHONPATH": launch.library,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_FILE": str(scratch / "nccl.%h.%p.log"),
        "GLOO_SOCKET_IFNAME": job.interface or "lo",
    }
    if job.interface:
        fixed["NCCL_SOCKET_IFNAME"] = job.interface
    debug = {name: fixed[name] for name in ("NCCL_DEBUG", "NCCL_DEBUG_FILE")}  # whatever serves says less, or elsewhere
    inherited.pop("NCCL_DEBUG_SUBSYS", None)
    return {**fixed, **inherited, **debug, **launch.environment}


def _logs(scratch: Scratch) -> Iterator[tuple[str, str]]:
    """The ends of NCCL's logs, which the ranks wrote, by file name."""
    found = (one.parts for one in untrusted.files_below(scratch.handle, deepest=0))
    logs = (parts for parts in found if fnmatch.fnmatch(parts[-1], "nccl.*.log"))
    for parts in itertools.islice(logs, MOST_LOGS):
        with contextlib.suppress(OSError):
            yield parts[-1], untrusted.end_below(scratch.handle, parts, LOG_LIMIT).decode("utf-8", "replace")


def _keep_logs(scratch: Scratch, folder: Path) -> list[str]:
    kept: list[str] = []
    for name, text in _logs(scratch):
        with contextlib.suppress(OSError):
            kept += evidence.output(folder, name, text)
    return sorted(kept)
