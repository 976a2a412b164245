"""The command blocks of the pages, pasted: each that says so runs on the testbed, as it is typed.

Only placeholders are replaced, by the table in commands.py; between the commands an operator edits what an operator edits.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e import commands
from tests.e2e.lab import ROOT, Lab
from tests.e2e.test_examples import overlay
from tests.unit.test_commands_in_docs import BLOCKS, Block

pytestmark = pytest.mark.long

FOLDER = ROOT / "inventories" / commands.NAME
MARKED = [block for block in BLOCKS if block.marker == "testbed"]
ON_A_CLUSTER = sorted(
    (block for block in MARKED if commands.DEMO not in block.text),
    key=lambda block: (commands.CLUSTER.index(block.page), block.line),
)
BEFORE = "550.127.05"
"""The driver that the cluster is brought up with, so that the README's roll has something to do."""
SECRETS = ("vault_ray_node_token", "vault_vllm_server_api_key")


def edited(lab: Lab, driver: str | None) -> str:
    """What an operator writes into the inventory that tools/new-inventory has made; its secrets stay those that were made."""
    written = json.loads(overlay(lab, {"gpu-01": "a1", "gpu-02": "a2"}))
    for host in written["all"]["hosts"].values():
        for name in SECRETS:
            host.pop(name, None)
        if driver is not None:
            host["nvidia_driver_version"] = driver
    return yaml.safe_dump(written)


def run(lab: Lab, script: str, deadline: float) -> str:
    """A block in a shell of an operator's; it stops at the first command that fails."""
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=deadline,
        stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, **lab.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_VAULT_PASSWORD_FILE": ""}
        | ({"ANSIBLE_VAULT_PASSWORD_FILE": f"{FOLDER}/vault-password.txt"} if FOLDER.exists() else {}),
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def row(said: str, label: str) -> str:
    """A row of the last closing box."""
    return [line[14:] for line in said.splitlines() if line.startswith(f"│ {label} ")][-1]


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Path]]:
    """Two bare hosts, and the file that is put into the inventory; nothing of either is left."""
    names = ("LOCKSTEP_TESTBED", "LOCKSTEP_TESTBED_PREFIX")
    lab = Lab(FOLDER, {name: os.environ[name] for name in names if os.environ.get(name)})
    assert not FOLDER.exists(), f"{FOLDER} is left by an earlier run: remove it"
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)
    path = tmp_path_factory.mktemp("operator") / "testbed.yml"
    path.write_text(edited(lab, BEFORE))
    yield lab, path
    lab.testbed("down")
    subprocess.run(["rm", "-r", "--", str(FOLDER)], check=False)


@pytest.mark.parametrize("block", ON_A_CLUSTER, ids=str)
def test_block_works_when_pasted(block: Block, operated: tuple[Lab, Path]) -> None:
    lab, path = operated
    values = {f"address of {host}": lab.address(host) for host in ("a1", "a2")}
    said = run(lab, commands.script(block.text, values, f"cp {path} {FOLDER}/testbed.yml"), 2400)
    if block.page == commands.FIRST:
        assert said.count("done after") >= 2, "site.yml, and the roll"
        # What the box says: the key is brought, and a completion comes.
        asked = run(lab, "\n".join(row(said, label) for label in ("key", "try it")), 120)
        assert json.loads(asked)["choices"][0]["text"], asked
        # From here on the inventory says what the roll has made of it.
        (FOLDER / "testbed.yml").write_text(edited(lab, None))
        assert lab.play("playbooks/status.yml", f"--vault-password-file={FOLDER}/vault-password.txt").rc == 0


@pytest.mark.parametrize("block", [block for block in MARKED if commands.DEMO in block.text], ids=str)
def test_demo_works_when_pasted_and_leaves_nothing(block: Block, operated: tuple[Lab, Path]) -> None:
    """The last: it removes what all testbeds of this machine share."""
    lab, _path = operated
    lab.testbed("down")
    said = run(lab, block.text, 1800)
    # 60 of `make demo` on a quiet machine; waits, which have a line each, are more under load, and make demo-down has its own.
    assert len([line for line in said.splitlines() if " waits for " not in line]) < 75, said
    assert json.loads(lab.testbed("status", "--json")) == []
