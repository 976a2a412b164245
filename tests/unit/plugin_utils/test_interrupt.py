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
        if os.fork() == 0:
            os._exit(0)
        time.sleep(5)
        print("nobody heard it")
    except KeyboardInterrupt:
        print("interrupted")
    """
)


@pytest.mark.parametrize("moment", ["before", "after_in_parent"])
@pytest.mark.parametrize(("mode", "says"), [("heard", "interrupted\n"), ("unheard", "nobody heard it\n")])
def test_an_interrupt_in_a_fork(moment: str, mode: str, says: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, mode],
        env={"PYTHONPATH": str(COLLECTIONS)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, says), ended.stderr
