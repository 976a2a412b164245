"""Choosing the container runtime, and what an image is made of."""

from __future__ import annotations

import tarfile
from io import BytesIO

import pytest

from testbed.lib import image, machine
from testbed.lib.errors import TestbedError


@pytest.mark.parametrize(
    ("mounted", "installed", "expected"),
    [
        ({"cgroup2"}, {"crun", "runc"}, "crun"),
        ({"cgroup2"}, {"runc"}, "runc"),
        ({"cgroup"}, {"crun", "runc"}, "runc"),
        ({"cgroup"}, {"crun"}, "crun"),
        ({"cgroup", "cgroup2"}, {"crun", "runc"}, "runc"),
    ],
)
def test_runtime_by_cgroup_mode(mounted: set[str], installed: set[str], expected: str) -> None:
    assert machine.choose_runtime(mounted, installed) == expected


@pytest.mark.parametrize(("mounted", "installed"), [({"cgroup", "cgroup2"}, {"crun"}), ({"cgroup2"}, set())])
def test_without_a_runtime_that_works_the_remediation_is_named(mounted: set[str], installed: set[str]) -> None:
    with pytest.raises(TestbedError, match="install runc"):
        machine.choose_runtime(mounted, installed)


def test_package_list_drops_comments() -> None:
    assert image.package_names("# all\nsystemd\n\nkmod # modprobe\n") == ["systemd", "kmod"]


def test_overlay_belongs_to_root_and_sudo_rules_are_closed() -> None:
    with tarfile.open(fileobj=BytesIO(image.overlay_tar())) as archive:
        entries = {entry.name: entry for entry in archive}
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}
    assert entries["etc/sudoers.d/deploy"].mode == 0o440
    assert entries["usr/lib/lockstep-testbed/init"].mode == 0o755
    assert "usr/lib/lockstep-testbed/fault_files.py" in entries
    assert image.overlay_tar() == image.overlay_tar()
