"""Every change between the drivers of the testbed's catalogue, simulated by the real apt-get as the look at a host does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_output, apt_root, preflight
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import Declared
from testbed.lib import debs
from testbed.lib.driver_catalog import RELEASES, packages
from tests.unit.module_utils.driver.aptlab import Host, Key, publish

# After 550 the catalogue's nvidia-compute-utils and nvidia-persistenced for Ubuntu conflict with each other.
FLAVOURS = {"ubuntu2204": ("ubuntu", RELEASES[:2]), "debian12": ("debian", RELEASES)}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    made = Key.make(tmp_path_factory.mktemp("gpg") / "home")
    yield made
    made.close()


def catalogue(names: str) -> dict[tuple[str, str], str]:
    """The control paragraph of every package, by name and version."""
    return {(one.name, one.version): debs.control(one) for version in RELEASES for one in packages(version, names)}


@pytest.mark.parametrize("names", FLAVOURS)
def test_every_change_of_version_and_modules_is_one_that_apt_would_do(
    names: str, tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    paragraphs = catalogue(names)
    index = "".join(
        f"{text}\nFilename: ./{name}_{version}.deb\nSize: 1000\nSHA256: {'0' * 64}\n\n"
        for (name, version), text in paragraphs.items()
    )
    url = publish(tmp_path / "repo", index, key)
    host = Host.make(tmp_path / "host", distribution=FLAVOURS[names][0])
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(apt_root, "RUN", tmp_path / "run")
    monkeypatch.setattr(records, "DRIVER", tmp_path / "driver.json")
    monkeypatch.setenv("DPKG_ADMINDIR", str(host.root / "var/lib/dpkg"))
    answers: list[apt_output.AptAnswer] = []
    real = apt_root.AptRoot.apt_get

    def apt_get(self: apt_root.AptRoot, arguments: Any, deadline: float) -> apt_output.AptAnswer:
        answers.append(real(self, arguments, deadline))
        return answers[-1]

    monkeypatch.setattr(apt_root.AptRoot, "apt_get", apt_get)
    installed: dict[str, str] = {}
    releases = FLAVOURS[names][1]
    newest, oldest, middle = releases[-1], releases[0], releases[1:-1]
    for version, flavor in [
        (oldest, "open"), (newest, "open"), (newest, "proprietary"), (oldest, "open"), (newest, "proprietary"),
        *((one, "open") for one in middle), *((one, "proprietary") for one in middle), (oldest, "open"),
    ]:  # fmt: skip
        declared = Declared(version, "nvidia", flavor, repository_url=url, keyring_url=f"file://{key.public}",
                            keyring_sha256=key.sha256)  # fmt: skip
        assert preflight.problems(declared, root=host.root) == [], (version, flavor, installed)
        installed = {name: exact for name, exact in installed.items() if name not in answers[-1].removes}
        installed |= {one.name: one.new for one in answers[-1].installs}
        status = "".join(
            paragraphs[name, exact].replace("\n", "\nStatus: hold ok installed\n", 1) + "\n\n"
            for name, exact in installed.items()
        )
        host.dpkg_status(status)
        assert os.listdir(tmp_path / "run") == []
    assert f"{oldest}-" in " ".join(installed.values())
