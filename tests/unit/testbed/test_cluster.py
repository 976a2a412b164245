"""Taking a testbed down, and putting another machine in a host's place."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from testbed.lib import cluster, errors, layout


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


def test_a_replaced_host_has_another_machine_id_and_host_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the real ssh-keygen; podman's part, which only names, removes and runs containers, is left out."""
    monkeypatch.setattr(layout, "STATE", tmp_path)
    testbed = layout.Instance("x", "10.89.99")
    removed: list[str] = []
    created: list[tuple[str, str]] = []
    present = {host: cluster.Node(host, "running", "image") for host in ("a1", "a2")}
    monkeypatch.setattr(cluster.machine, "raise_inotify_limit", lambda: None)
    monkeypatch.setattr(cluster, "ensure_network", lambda _instance: None)
    monkeypatch.setattr(
        cluster, "nodes", lambda _instance: {host: node for host, node in present.items() if host not in gone()}
    )
    monkeypatch.setattr(cluster, "_remove", lambda containers: removed.extend(containers))
    monkeypatch.setattr(cluster, "create", lambda _instance, host, image: created.append((host, image)))
    monkeypatch.setattr(cluster, "wait_ready", lambda _instance, _host: None)

    def gone() -> set[str]:
        return {name.rpartition("-")[2] for name in removed} - {host for host, _image in created}

    def identities() -> dict[str, tuple[str, str]]:
        seeds = {host: testbed.state / "hosts" / host for host in present}
        return {
            host: ((seed / "machine-id").read_text(), (seed / "ssh_host_ed25519_key.pub").read_text())
            for host, seed in seeds.items()
        }

    cluster.ensure_identity(testbed)
    before, login = identities(), (testbed.state / "id_ed25519").read_text()
    cluster.replace(testbed, "a2")
    after = identities()
    assert (removed, created) == (["lockstep-x-a2"], [("a2", "image")])
    assert after["a1"] == before["a1"]
    assert after["a2"][0] != before["a2"][0]
    assert after["a2"][1] != before["a2"][1]
    known = (testbed.state / "known_hosts").read_text()
    assert after["a2"][1].split()[1] in known
    assert before["a2"][1].split()[1] not in known
    assert (testbed.state / "id_ed25519").read_text() == login
