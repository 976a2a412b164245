"""The ranks of this host, for one gate or several: started together, and ended together as soon as one of them fails.

``python -m lockstep.gates.ranks.main`` reads a job (see ``job.Job``) as JSON from standard input and starts one process
per rank of this host, each of which does the job's parts in their order and reports them on standard output (see ``events``).
Runs under the serving environment's Python, as a child of ``deadline``.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from types import ModuleType

from ...core import causes, typed
from ...core.command_parts import PARTS_HANDLE
from . import collectives, cuda_graphs, events, vllm_kernels
from .context import Context
from .job import Job

JOB = "LOCKSTEP_JOB"
WORKS: dict[str, ModuleType] = {"collectives": collectives, "graphs": cuda_graphs, "vllm_kernels": vllm_kernels}
"""What a part of a job may ask for: modules with ``defaults(backend)`` and ``work(context)``."""
_PR_SET_PTRACER = 0x59616D61


def error_code(error: BaseException) -> events.ErrorCode:
    """Whether a rank failed by itself or because it lost a peer. Gloo raises a bare RuntimeError: its class says nothing."""
    return "peer_lost" if causes.lost_peer(str(error)) else "own"


def work(job: Job, rank: int) -> int:
    """The whole life of one rank. Returns its exit status."""
    _allow_stack_dumps()
    context = Context(job, rank)
    report = context.report
    try:
        context.connect(job.master)
        for number, part in enumerate(job.parts):
            asked = WORKS[part.work]
            context.begin_part(number, part, asked.defaults)
            asked.work(context)
        report.begin("end")
        context.disconnect()
    except BaseException as error:
        report.send(
            events.Error,
            step=report.step,
            phase=report.phase,
            what=report.what,
            code=error_code(error),
            exception=type(error).__name__,
            message=str(error)[:2000],
            at=time.time(),
        )
        traceback.print_exc()
        return 1
    return 0


def _allow_stack_dumps() -> None:
    """Let stacks be taken: by SIGUSR1, and by py-spy of the same user where Yama allows only ancestors."""
    import ctypes

    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def run_ranks(job: Job) -> int:
    """Run this host's ranks; as soon as one ends badly the others are ended. Returns 1 when one ended badly."""
    handles = [int(os.environ[PARTS_HANDLE])] if PARTS_HANDLE in os.environ else []
    children = {
        rank: subprocess.Popen(
            [sys.executable, "-m", "lockstep.gates.ranks.main", str(rank)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, JOB: json.dumps(dataclasses.asdict(job)), **_environment(job, rank)},
            pass_fds=handles,
        )
        for rank in range(job.first, job.first + job.here)
    }
    worst = 0
    while children:
        ended = {rank: child for rank, child in children.items() if child.poll() is not None}
        for rank, child in ended.items():
            del children[rank]
            os.write(1, events.line(events.Ended(rank, job.host, child.returncode, time.time())))
            worst = worst or child.returncode
        if worst:
            break
        time.sleep(0.05)
    for child in children.values():
        child.kill()
        child.wait()
    return 1 if worst else 0


def _environment(job: Job, rank: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(job.world),
        "LOCAL_RANK": str(rank - job.first),
        "MASTER_ADDR": job.master[0],
        "MASTER_PORT": str(job.master[1]),
    }


def main(arguments: list[str]) -> int:
    if arguments:
        status = work(typed.parse(Job, json.loads(os.environ[JOB])), int(arguments[0]))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # nothing of torch's may hang the end
    return run_ranks(typed.parse(Job, json.load(sys.stdin)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
