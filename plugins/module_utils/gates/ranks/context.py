"""What a gate's work is given: torch's device and process group, and the reporter of its steps and findings."""

from __future__ import annotations

import datetime
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...core import command_parts
from .. import wire
from . import events
from .events import Phase
from .job import Job, Part

LONG = datetime.timedelta(days=1)
"""Timeout given to torch: the deadline is ours, and torch's own would hide which rank hangs."""


class Reporter:
    """Reports what a rank does, one line an event."""

    def __init__(self, rank: int, host: str, barrier: Callable[[int], None]) -> None:
        self.rank = rank
        self.host = host
        self.step = 0
        self.phase: Phase = "init"
        self.what = ""
        self.part = ""
        self._next: tuple[int, str] | None = None
        self._barrier = barrier

    def send(self, kind: type[events.Event], **fields: Any) -> None:
        """Report an event of this rank."""
        os.write(1, events.line(kind(rank=self.rank, host=self.host, **fields)))

    def part_begins(self, number: int, name: str) -> None:
        """What follows belongs to another part of the job, whose time runs from when all ranks have come to it."""
        self._next = (number, name)

    def begin(self, phase: Phase, what: str = "") -> None:
        """The next step begins, once every rank has finished the one before."""
        if self.step:
            self._send_step(waiting=True)
            self._barrier(self.step)
        self.step += 1
        self.phase, self.what = phase, what
        if self._next is not None:
            number, self.part = self._next
            self._next = None
            if number:
                command_parts.tell(number)
        self._send_step(waiting=False)

    def load(self) -> None:
        """Torch is being loaded, which is no step: there is nobody to wait for yet."""
        self.send(events.Step, step=0, phase="load", what="torch", waiting=False, at=time.time())

    def _send_step(self, waiting: bool) -> None:
        self.send(
            events.Step,
            step=self.step,
            phase=self.phase,
            what=self.what,
            waiting=waiting,
            at=time.time(),
            part=self.part,
        )


class Context:
    """One rank: its place in the group, its device, the parameters of the part that it works on."""

    def __init__(self, job: Job, rank: int) -> None:
        self.rank = rank
        self.world = job.world
        self.local = rank - job.first
        self.params: dict[str, Any] = {}
        self.backend = job.backend
        self.device: Any = None
        self.store: Any = None
        self.report = Reporter(rank, job.host, self._barrier)

    def begin_part(self, number: int, part: Part, defaults: Callable[[str], Mapping[str, Any]]) -> None:
        """The steps that follow are those of this part of the job.

        Args:
            number: of the part, counted from 0.
            part: this one.
            defaults: of its parameters, by backend.
        """
        self.params = {**defaults(self.backend), **part.params}
        self.report.part_begins(number, part.name)

    def connect(self, master: tuple[str, int]) -> None:
        """Load torch, choose backend and device, and form the process group.

        Args:
            master: address and port where rank 0 listens.

        Raises:
            RuntimeError: ``nccl`` was asked for and there is no GPU for this rank.
        """
        self.report.load()
        import torch
        import torch.distributed

        on_gpu = torch.cuda.is_available()
        if self.backend == "auto":
            self.backend = "nccl" if on_gpu else "gloo"
        if self.backend == "nccl" and not on_gpu:
            raise RuntimeError("backend nccl was asked for, and torch.cuda.is_available() is false on this host")
        if self.backend == "nccl":
            if torch.cuda.device_count() <= self.local:
                raise RuntimeError(f"rank {self.rank} needs GPU {self.local}, torch sees {torch.cuda.device_count()}")
            torch.cuda.set_device(self.local)
            self.device = torch.device("cuda", self.local)
        else:
            self.device = torch.device("cpu")
            torch.set_num_threads(1)
        self.report.send(events.Started, **self._versions())
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
        self._leave()

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

    def _leave(self) -> None:
        """Rank 0 holds the store, so it leaves last."""
        if self.rank:
            self.store.add("lockstep/left", 1)
            return
        while self.store.add("lockstep/left", 0) < self.world - 1:
            time.sleep(0.005)

    def _versions(self) -> dict[str, Any]:
        import torch

        found: dict[str, Any] = {"backend": self.backend, "device": "cpu", "torch": torch.__version__}
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
    return {
        "local_link": "nvlink" if wire.all_by_nvlink(topology.stdout) else "pcie",
        "network_link": wire.network_kind(wire.nics(ignored=wire.nvswitch_ports())),
    }
