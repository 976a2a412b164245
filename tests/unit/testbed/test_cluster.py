"""Taking a testbed down."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from testbed.lib import cluster, errors


class Podman:
    """Containers that die at the ``dies``-th time they are asked, as on a busy machine."""

    def __init__(self, dies: int) -> None:
        self.dies, self.asked, self.now = dies, 0, 0.0

    def run(self, command: Sequence[str], **_options: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["podman", "rm", "--force"]
        assert command[-2:] == ["x-a1", "x-a2"]
        self.asked += 1
        self.now += 10
        late = self.asked < self.dies
        return subprocess.CompletedProcess([*command], int(late), "", "did not die within timeout" if late else "")


@pytest.mark.parametrize(("dies", "removed"), [(1, True), (3, True), (99, False)])
def test_a_container_that_does_not_die_in_time_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, dies: int, removed: bool
) -> None:
    podman = Podman(dies)
    monkeypatch.setattr(cluster.shell, "run", podman.run)
    monkeypatch.setattr(cluster.time, "monotonic", lambda: podman.now)
    monkeypatch.setattr(cluster.time, "sleep", lambda _seconds: None)
    if removed:
        cluster._remove(["x-a1", "x-a2"])
        assert podman.asked == dies
    else:
        with pytest.raises(errors.TestbedError, match="did not die within timeout"):
            cluster._remove(["x-a1", "x-a2"])
        assert 2 < podman.asked < 20
