"""The ranks of one gate on this host: started together, and ended together as soon as one of them fails.

``python -m lockstep.gates.ranks.main`` reads a job (see ``launcher.Job``) as JSON from standard input and starts one process
per rank of this host, each of which does the job's work. Runs under the serving environment's Python, as a child of
``deadline``.

Everything is told on standard output as one JSON object a line, written whole, so that what happened up to a hang can be
read afterwards:

``{"event": "start", "rank", "host", "pid", "backend", "device"}``
``{"event": "step", "rank", "host", "step": n, "phase": "capture", "what": "full 8", "waiting": false, "at": Unix time}``:
what the rank does now. All ranks take the same steps; ``waiting`` says that its own part is done and it waits for the
others.
``{"event": "measured", "rank", "host", "name", …}``: a figure or a finding of the work.
``{"event": "error", "rank", "host", "step", "phase", "what", "kind", "message"}``: an exception ended the rank.
``{"event": "end", "rank", "host", "status"}``: written by the parent; negative for a signal.
"""

from __future__ import annotations

import datetime
import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

JOB = "LOCKSTEP_JOB"
LONG = datetime.timedelta(days=1)
"""Timeout given to torch: the deadline is ours, and torch's own would hide which rank stood still."""
_PR_SET_PTRACER = 0x59616D61


class Reporter:
    """Tells what a rank does, one line an event."""

    def __init__(self, rank: int, host: str, barrier: Callable[[int], None]) -> None:
        self.rank = rank
        self.host = host
        self.step = 0
        self.phase = "init"
        self.what = ""
        self._barrier = barrier

    def tell(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = json.dumps({"event": event, "rank": self.rank, "host": self.host, **fields})
        os.write(1, line.encode() + b"\n")

    def begin(self, phase: str, what: str = "") -> None:
        """The next step begins, once every rank has finished the one before."""
        if self.step:
            self._tell_step(waiting=True)
            self._barrier(self.step)
        self.step += 1
        self.phase, self.what = phase, what
        self._tell_step(waiting=False)

    def measured(self, name: str, **fields: Any) -> None:
        """A figure or a finding, with units in the field names."""
        self.tell("measured", name=name, phase=self.phase, what=self.what, **fields)

    def _tell_step(self, waiting: bool) -> None:
        self.tell("step", step=self.step, phase=self.phase, what=self.what, waiting=waiting, at=time.time())


class Context:
    """What a gate's work is given: torch's device and process group, and the reporter."""

    def __init__(self, job: Mapping[str, Any], rank: int) -> None:
        self.rank = rank
        self.world = int(job["world"])
        self.local = rank - int(job["first"])
        self.work = job["work"]
        self.params: dict[str, Any] = dict(job["params"])
        self.backend = job["backend"]
        self.device: Any = None
        self.store: Any = None
        self.report = Reporter(rank, job["host"], self._barrier)

    def connect(self, master: tuple[str, int]) -> None:
        """Load torch, choose backend and device, and form the process group.

        Raises:
            RuntimeError: ``nccl`` was asked for and there is no GPU for this rank.
        """
        self.report.tell("step", step=0, phase="load", what="torch", waiting=False, at=time.time())
        import torch
        import torch.distributed

        on_gpu = torch.cuda.is_available()
        if self.backend == "auto":
            self.backend = "nccl" if on_gpu else "gloo"
        if self.backend == "nccl" and not on_gpu:
            raise RuntimeError("backend nccl was asked for, and torch.cuda.is_available() is false on this host")
        if self.backend == "nccl":
            if torch.cuda.device_count() <= self.local:
                raise RuntimeError(f"rank {self.rank} wants GPU {self.local}, torch sees {torch.cuda.device_count()}")
            torch.cuda.set_device(self.local)
            self.device = torch.device("cuda", self.local)
        else:
            self.device = torch.device("cpu")
            torch.set_num_threads(1)
        self.params = {**works()[self.work].defaults(self.backend), **_given(self.params)}
        self.report.tell("start", pid=os.getpid(), **self._versions())
        self.report.begin("init", f"store at {master[0]}:{master[1]}")
        self.store = torch.distributed.TCPStore(
            master[0], master[1], self.world, is_master=self.rank == 0, timeout=LONG, wait_for_workers=True
        )
        options: dict[str, Any] = {"device_id": self.device} if self.backend == "nccl" else {}
        torch.distributed.init_process_group(
            self.backend, store=self.store, rank=self.rank, world_size=self.world, timeout=LONG, **options
        )

    def disconnect(self) -> None:
        """Give everything back: graphs' memory, the process group, the store."""
        import torch
        import torch.distributed

        torch.distributed.destroy_process_group()
        if self.backend == "nccl":
            torch.cuda.empty_cache()
        self._farewell()

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        import torch

        if self.backend == "nccl":
            torch.cuda.synchronize(self.device)

    def _barrier(self, step: int) -> None:
        """Wait for all ranks over the store, which neither NCCL nor gloo under test carries."""
        if self.world == 1 or self.store is None:
            return
        key = f"lockstep/step/{step}"
        if self.store.add(key, 1) == self.world:
            self.store.set(f"{key}/done", b"1")
        self.store.wait([f"{key}/done"], LONG)

    def _farewell(self) -> None:
        """Rank 0 holds the store, so it leaves last."""
        if self.rank:
            self.store.add("lockstep/farewell", 1)
            return
        while self.store.add("lockstep/farewell", 0) < self.world - 1:
            time.sleep(0.005)

    def _versions(self) -> dict[str, Any]:
        import torch

        found: dict[str, Any] = {"backend": self.backend, "device": "cpu", "torch": torch.__version__, "nccl": None}
        if self.local == 0:
            found |= links(self.backend == "nccl")
        if self.backend == "nccl":
            found["device"] = torch.cuda.get_device_name(self.device)
            found["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
            found["cuda"] = torch.version.cuda
        return found


def links(on_gpu: bool) -> dict[str, str]:
    """What traffic crosses between GPUs of this host (``local_link``) and to others (``network_link``)."""
    if not on_gpu:
        return {"local_link": "cpu", "network_link": "cpu"}
    topology = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, timeout=20, check=False)
    active = any("ACTIVE" in path.read_text() for path in Path("/sys/class/infiniband").glob("*/ports/*/state"))
    return {
        "local_link": "nvlink" if re.search(r"\bNV\d+\b", topology.stdout) else "pcie",
        "network_link": "ib" if active else "ethernet",
    }


def works() -> dict[str, Any]:
    """Every work that a job may name: modules with ``defaults(backend)`` and ``work(context)``."""
    from . import collectives, cuda_graphs

    return {"collectives": collectives, "graphs": cuda_graphs}


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def work(job: Mapping[str, Any], rank: int) -> int:
    """The whole life of one rank. Returns its exit status."""
    _be_seen()
    context = Context(job, rank)
    report = context.report
    try:
        context.connect((job["master"][0], int(job["master"][1])))
        works()[context.work].work(context)
        report.begin("end")
        context.disconnect()
    except BaseException as error:
        report.tell(
            "error",
            step=report.step,
            phase=report.phase,
            what=report.what,
            kind=type(error).__name__,
            message=str(error)[:2000],
            at=time.time(),
        )
        traceback.print_exc()
        return 1
    report.tell("finished", at=time.time())
    return 0


def _be_seen() -> None:
    """Let stacks be taken: by SIGUSR1, and by py-spy of the same user where Yama allows only ancestors."""
    import ctypes

    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def gang(job: Mapping[str, Any]) -> int:
    """Run this host's ranks; as soon as one ends badly the others are ended. Returns the worst exit status."""
    children = {
        rank: subprocess.Popen(
            [sys.executable, "-m", "lockstep.gates.ranks.main", str(rank)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, JOB: json.dumps(job), **_environment(job, rank)},
        )
        for rank in range(int(job["first"]), int(job["first"]) + int(job["here"]))
    }
    worst = 0
    while children:
        ended = {rank: child for rank, child in children.items() if child.poll() is not None}
        for rank, child in ended.items():
            del children[rank]
            line = {"event": "end", "rank": rank, "host": job["host"], "status": child.returncode, "at": time.time()}
            os.write(1, json.dumps(line).encode() + b"\n")
            worst = worst or child.returncode
        if worst:
            break
        time.sleep(0.05)
    for child in children.values():
        child.kill()
        child.wait()
    return 1 if worst else 0


def _environment(job: Mapping[str, Any], rank: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(job["world"]),
        "LOCAL_RANK": str(rank - int(job["first"])),
        "MASTER_ADDR": str(job["master"][0]),
        "MASTER_PORT": str(job["master"][1]),
    }


def main(arguments: list[str]) -> int:
    if arguments:
        status = work(json.loads(os.environ[JOB]), int(arguments[0]))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # nothing of torch's may hang the end
    return gang(json.load(sys.stdin))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
