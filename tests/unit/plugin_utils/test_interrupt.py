"""An interrupt that comes in the middle of a fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

COLLECTIONS = Path(__file__).parents[3] / "collections"
# As Ansible's own handler does: the next one would end the process at once.
PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, time
    from ansible_collections.lockstep.vllm.plugins.plugin_utils.interrupt import hear_every_interrupt

    def ansible_s(signum, frame):
        signal.signal(signum, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, ansible_s)
    os.register_at_fork(**{sys.argv[1]: lambda: os.kill(os.getpid(), signal.SIGINT)})
    if sys.argv[2] == "heard":
        hear_every_interrupt()
    try:
        worker = os.fork()
        if worker == 0:
            os._exit(0)
        time.sleep(3)
        print("controller goes on", end=", ")
    except KeyboardInterrupt:
        print("controller ends", end=", ")
    print("worker goes on" if os.waitpid(worker, 0)[1] == 0 else "worker ends")
    """
)


@pytest.mark.parametrize(
    ("moment", "unheard", "heard"),
    [
        ("before", "controller goes on, worker goes on\n", "controller ends, worker goes on\n"),
        ("after_in_parent", "controller goes on, worker goes on\n", "controller ends, worker goes on\n"),
        ("after_in_child", "controller goes on, worker goes on\n", "controller goes on, worker ends\n"),
    ],
)
def test_an_interrupt_in_a_fork(moment: str, unheard: str, heard: str) -> None:
    assert outcome(moment, "unheard") == unheard
    assert outcome(moment, "heard") == heard


def outcome(moment: str, mode: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, mode],
        env={"PYTHONPATH": str(COLLECTIONS)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
