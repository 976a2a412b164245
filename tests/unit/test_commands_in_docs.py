"""Every command block of the pages says how it is tested, and names only playbooks, targets, tools and variables that are there.

The line above a block is its marker: ``<!-- test: syntax -->``, checked here; ``<!-- test: testbed -->``, checked here and run by
tests/e2e/test_commands.py, with the placeholders that tests/e2e/commands.py lists.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import known_variables
from tests.e2e import commands
from tests.machine import PATIENCE

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(?:<!-- test: (\w+) -->\n)?```(sh|bash|shell|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOLDERS = ("tools/", "testbed/", "benchmarks/", "tests/")


@dataclasses.dataclass(frozen=True)
class Block:
    page: str
    line: int
    marker: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Parts of every simple command; comments, pipes and ``&&`` end one."""
        found: list[list[str]] = [[]]
        for line in self.text.replace("\\\n", " ").splitlines():
            found.append([])
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
            lexer.whitespace_split = True
            try:
                for word in lexer:
                    if set(word) <= set("|&;()"):
                        found.append([])
                    else:
                        found[-1].append(word)
            except ValueError:  # a quotation over several lines: bash -n has checked it
                continue
        return [parts for parts in found if parts]


def blocks() -> list[Block]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = []
    for page in listed.splitlines():
        if page.startswith(("tests/unit/fixtures/", "docs/evidence/")) or not (ROOT / page).is_file():
            continue
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            found.append(Block(page, text[: match.start()].count("\n") + 1, match[1] or "", match[3]))
    return found


BLOCKS = blocks()
every = pytest.mark.parametrize("block", BLOCKS, ids=str)


@functools.cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_pages_have_commands() -> None:
    assert {block.page for block in BLOCKS} >= {"README.md", "CONTRIBUTING.md"}


@every
def test_block_says_how_it_is_tested(block: Block) -> None:
    assert block.marker in ("syntax", "testbed"), (
        f"{block}: write <!-- test: syntax --> or <!-- test: testbed --> above it"
    )


@every
def test_block_is_shell(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block}: {done.stderr}"


@every
def test_what_it_names_is_there(block: Block) -> None:
    for parts in block.commands:
        if parts[0] == "make":
            wanted = {word for word in parts[1:] if not word.startswith("-") and "=" not in word}
            assert wanted <= targets(), f"{block}: {wanted - targets()}"
        for word in parts:
            if word.startswith(FOLDERS):
                assert (ROOT / word).exists(), f"{block}: {word}"
                assert not parts.index(word) or os.access(ROOT / parts[0], os.X_OK) or "/" not in parts[0]
        if Path(parts[0]).name == "ansible-playbook":
            playbooks = [word for word in parts if word.endswith(".yml") and "group_vars" not in word]
            assert playbooks, f"{block}: no playbook"
            assert all((ROOT / name).is_file() for name in playbooks), f"{block}: {playbooks}"
            extra = [parts[at + 1] for at, word in enumerate(parts[:-1]) if word == "-e"]
            named = {each.partition("=")[0] for each in extra if re.match(r"\w+=", each)}
            named |= {key for each in extra if each.startswith("{") for key in yaml.safe_load(each)}
            assert named <= {*known_variables.options()}, f"{block}: {named - {*known_variables.options()}}"
            assert any(word in ("-i", "--inventory") for word in parts), f"{block}: ansible-playbook without -i"


@pytest.mark.parametrize("block", [block for block in BLOCKS if "tools/new-inventory" in block.text], ids=str)
def test_new_inventory_takes_these_arguments(block: Block, tmp_path: Path) -> None:
    for number, parts in enumerate(parts for parts in block.commands if parts[0] == "tools/new-inventory"):
        done = subprocess.run(
            [sys.executable, ROOT / "tools/new-inventory", f"{tmp_path}/{number}", *parts[2:]],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


CODE = re.compile(
    r"^```.*?\n(?P<block>.*?)^```$|^ {4}(?P<indented>\S.*)$|`(?P<span>[^`\n]+)`", re.MULTILINE | re.DOTALL
)
ANSIBLE = re.compile(r"\bansible(?:-playbook)? (?!--(?:version|help)\b).*")
AS_THE_CODE_SAYS_IT = ("docs/reference/refusals.md",)
"""Messages before a run puts its own inventory into their commands."""


def code(text: str) -> list[str]:
    """The lines of a page that somebody may paste: of blocks, indented, and in running text."""
    found = [match[match.lastgroup or 0] for match in CODE.finditer(text)]
    return [line for part in found for line in part.replace("\\\n", " ").splitlines()]


def without_inventory(lines: Iterable[str]) -> list[str]:
    """The commands of Ansible among them that name no inventory: Ansible warns, does nothing and ends with 0."""
    commands_found = [match[0] for line in lines for match in ANSIBLE.finditer(line)]
    return [each for each in commands_found if not re.search(r" (-i|--inventory)[ =]", each)]


def pages() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    left_out = ("tests/", "docs/evidence/", *AS_THE_CODE_SAYS_IT)
    return [page for page in listed.splitlines() if not page.startswith(left_out) and (ROOT / page).is_file()]


@pytest.mark.parametrize("page", pages())
def test_every_command_names_an_inventory(page: str) -> None:
    assert without_inventory(code((ROOT / page).read_text(encoding="utf-8"))) == []


def test_every_alert_s_command_names_an_inventory_and_a_version() -> None:
    rules = yaml.safe_load((ROOT / "docs/reference/alerts.yml").read_text(encoding="utf-8"))
    said = [rule["annotations"]["next"] for group in rules["groups"] for rule in group["rules"]]
    assert len(said) > 20
    assert without_inventory(said) == []
    rolls = [each for each in said if "upgrade_driver.yml" in each]
    assert [each for each in rolls if "nvidia_driver_version=" not in each] == []


PROGRAM = re.compile(
    r"^(?:\$ |\. \S|(?:sudo |[A-Z_]+=\S+ )*(?:ansible[\w-]*|make|curl|python3?|export|cd|systemctl|tools/\S+|testbed/\S+) )"
)


def unmarked(text: str) -> list[str]:
    """Commands that stand where no marker is: indented, or in a block that is not said to be shell."""
    without_shell = BLOCK.sub("", text)
    found = [match for match in CODE.finditer(without_shell) if match.lastgroup == "indented" or match[0][3:4] == "\n"]
    lines = [
        line for match in found if match.lastgroup != "span" for line in (match[match.lastgroup] or "").splitlines()
    ]
    return [line for line in lines if PROGRAM.match(line)]


@pytest.mark.parametrize("page", pages())
def test_every_command_that_has_a_line_of_its_own_is_in_a_marked_block(page: str) -> None:
    assert unmarked((ROOT / page).read_text(encoding="utf-8")) == []


def test_what_is_unmarked() -> None:
    page = "    make demo\n\n```\nexport A=b\nsaid by it\n```\n\n```yaml\nmake: it\n```\n\n    deb http://x\n\n"
    marked = "<!-- test: syntax -->\n```sh\nmake demo\n```\n\n"
    assert unmarked(page + marked) == ["make demo", "export A=b"]


def test_what_names_no_inventory() -> None:
    page = "`ansible a1 -m ping`, ansible-core\n\n```yaml\nnext: ansible-playbook \\\n  site.yml\n```\n\n    ansible-playbook -i x site.yml\n"
    assert without_inventory(code(page)) == ["ansible a1 -m ping", "ansible-playbook    site.yml"]


@pytest.mark.parametrize("page", pages())
def test_no_block_puts_files_where_ansible_misreads_them(page: str) -> None:
    """A folder of a group's name hides the file of that name; any file in an inventory's folder is read as hosts."""
    blocks_found = [
        match["block"] for match in CODE.finditer((ROOT / page).read_text(encoding="utf-8")) if match["block"]
    ]
    bad = re.compile(r"group_vars/(lockstep|router)/|inventory_dir }}/|inventories/mine/files/")
    assert [found[0] for each in blocks_found for found in bad.finditer(each)] == []


MARKED = [block for block in BLOCKS if block.marker == "testbed"]
VALUES = {"address of a1": "10.89.77.11", "address of a2": "10.89.77.12"}


def test_every_marked_block_is_run_and_every_page_that_is_run_has_one() -> None:
    pages = {block.page for block in MARKED if commands.DEMO not in block.text}
    assert pages == {*commands.CLUSTER}
    assert any(commands.DEMO in block.text for block in MARKED)


@pytest.mark.parametrize("block", MARKED, ids=str)
def test_no_placeholder_is_left_and_nothing_else_is_replaced(block: Block) -> None:
    run = commands.script(block.text, VALUES)
    for left in ("mine/", "mine ", "10.20.", "--gpus 8", "--user deploy", "llama", "595.58.03", "NAME", "…", "<"):
        assert left not in run, run
    typed = [
        word
        for word in block.text.replace("\\\n", " ").split()
        if not any(one.typed in word for one in commands.PLACEHOLDERS)
    ]
    assert [word for word in typed if word not in run.split()] == []


def test_what_takes_a_placeholder_s_place() -> None:
    text = "tools/new-inventory mine --hosts gpu-01=10.20.0.11 --gpus 8 --user deploy \\\n  --model /srv/models/llama-3.1-405b-instruct\n"
    text += "ansible-playbook -i inventories/mine site.yml --limit mine\n"
    assert commands.script(text, VALUES, "cp x y").splitlines() == [
        f"tools/new-inventory {commands.NAME} --hosts gpu-01=10.89.77.11 --gpus 1 --user root    --model /srv/models/tiny",
        "cp x y",
        f"ansible-playbook -i inventories/{commands.NAME} site.yml --limit mine",
    ]
