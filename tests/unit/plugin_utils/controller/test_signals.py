"""An interrupt that comes where Ansible does not hear it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COLLECTIONS = Path(__file__).parents[4] / "collections"
# The handler is as Ansible's own: it tells the workers that it knows of, and the next one would end the process at once.
PROGRAM = textwrap.dedent(
    """
    import multiprocessing, os, signal, sys, time
    from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.signals import hear_every_interrupt

    moment, mode = sys.argv[1:]
    workers = []

    def ansible_s(signum, frame):
        signal.signal(signum, signal.SIG_DFL)
        for known in workers:
            if known.is_alive():
                os.kill(known.pid, signum)
        raise KeyboardInterrupt

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def worker(seconds):
        started = multiprocessing.get_context("fork").Process(target=time.sleep, args=(seconds,))
        started.start()
        return started

    signal.signal(signal.SIGINT, ansible_s)
    if moment == "old worker is closed":
        workers.append(worker(0))
        workers[0].join()
        workers[0].close()
    else:
        os.register_at_fork(**{moment: interrupt})
    if mode == "heard":
        hear_every_interrupt()
    try:
        if moment == "old worker is closed":
            interrupt()
        workers[:] = [worker(3)]
        time.sleep(3)
        print("controller goes on", end=", ")
    except KeyboardInterrupt:
        print("controller ends", end=", ")
    except ValueError as error:
        print(f"controller fails, {error}")
        sys.exit()
    workers[0].join()
    print("worker goes on" if workers[0].exitcode == 0 else "worker ends")
    """
)


@pytest.mark.parametrize(
    ("moment", "unheard", "heard"),
    [
        ("before", "controller goes on, worker goes on\n", "controller ends, worker ends\n"),
        ("after_in_parent", "controller goes on, worker goes on\n", "controller ends, worker ends\n"),
        ("after_in_child", "controller goes on, worker goes on\n", "controller goes on, worker ends\n"),
        ("old worker is closed", "controller fails, process object is closed\n", "controller ends, worker ends\n"),
    ],
)
def test_an_interrupt_that_ansible_does_not_hear(moment: str, unheard: str, heard: str) -> None:
    assert outcome(moment, "unheard") == unheard
    assert outcome(moment, "heard") == heard


def outcome(moment: str, mode: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, mode],
        env={"PYTHONPATH": str(COLLECTIONS)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
