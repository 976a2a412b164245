"""An interrupt that comes where Ansible loses it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import signals
from tests.machine import PATIENCE

COLLECTIONS = Path(__file__).parents[4] / "collections"
# The handler is as Ansible's own: it signals the workers that it knows of, and the next one would end the process at once.
PROGRAM = textwrap.dedent(
    """
    import multiprocessing, os, signal, sys, time
    from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.signals import install_signal_handlers

    moment, mode = sys.argv[1:]
    workers = []

    def ansible_handler(signum, frame):
        signal.signal(signum, signal.SIG_DFL)
        for known in workers:
            if known.is_alive():
                os.kill(known.pid, signum)
        raise KeyboardInterrupt

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def worker(work, *given):
        started = multiprocessing.get_context("fork").Process(target=work, args=given)
        started.start()
        return started

    signal.signal(signal.SIGINT, ansible_handler)
    if moment == "old worker is closed":
        workers.append(worker(time.sleep, 0))
        workers[0].join()
        workers[0].close()
    else:
        os.register_at_fork(**{moment: interrupt})
    if mode == "installed":
        install_signal_handlers()
    try:
        if moment == "old worker is closed":
            interrupt()
        waits, goes_on = os.pipe()
        workers[:] = [worker(os.read, waits, 1)]
        time.sleep(0.3)
        print("controller goes on", end=", ")
        os.write(goes_on, b"x")
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
    ("moment", "lost", "kept"),
    [
        ("before", "controller goes on, worker goes on\n", "controller ends, worker ends\n"),
        ("after_in_parent", "controller goes on, worker goes on\n", "controller ends, worker ends\n"),
        ("after_in_child", "controller goes on, worker goes on\n", "controller goes on, worker ends\n"),
        ("old worker is closed", "controller fails, process object is closed\n", "controller ends, worker ends\n"),
    ],
)
def test_an_interrupt_that_ansible_loses(moment: str, lost: str, kept: str) -> None:
    without, having = start(moment, "absent"), start(moment, "installed")
    assert outcome(without) == lost
    assert outcome(having) == kept


@pytest.mark.parametrize(
    ("version", "supported"), [("2.18.9", False), ("2.19.4", True), ("2.21.5", True), ("2.22.0rc1", False)]
)
def test_the_handlers_suit_the_versions_that_they_were_tried_with(version: str, supported: bool) -> None:
    assert signals.supports(version) == supported


def start(moment: str, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, moment, mode],
        env={"PYTHONPATH": str(COLLECTIONS)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def outcome(program: subprocess.Popen[str]) -> str:
    stdout, stderr = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0, stderr
    return stdout
