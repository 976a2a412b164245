"""Who describes which repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_sources, package_problems
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.apt_sources import Source

CASE = Path(__file__).parents[2] / "fixtures/cases/apt-signed-by-twice"
URI = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64"
KEYRING = "/etc/apt/keyrings/lockstep-nvidia.asc"


def host(root: Path, **files: str) -> list[Source]:
    folder = root / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return apt_sources.described(root)


def test_the_case() -> None:
    text = (CASE / "cuda-ubuntu2204-x86_64.list").read_text()
    (source,) = apt_sources.parse_list(text, "/f.list")
    assert source == Source("/f.list", f"{URI}/", "/", "/usr/share/keyrings/cuda-archive-keyring.gpg")


@pytest.mark.parametrize(
    ("name", "text", "contradicts"),
    [
        ("a__list", f"deb [signed-by=/k.gpg] {URI}/ /\n", True),
        ("a__list", f"deb {URI} /\n", True),  # trusted by /etc/apt/trusted.gpg.d
        ("a__list", f"deb [arch=amd64 signed-by={KEYRING}] {URI} /\n", False),
        ("a__list", f"# deb [signed-by=/k.gpg] {URI}/ /\n", False),
        ("a__list", f"deb [signed-by=/k.gpg] {URI.replace('2204', '2404')}/ /\n", False),
        ("a__list__disabled", f"deb [signed-by=/k.gpg] {URI}/ /\n", False),
        ("a__sources", f"Types: deb\nURIs: {URI}/\nSuites: /\nSigned-By: /k.gpg\n", True),
        ("a__sources", f"Types: deb\nURIs: {URI}/\nSuites: /\nSigned-By: /k.gpg\nEnabled: no\n", False),
        ("a__sources", f"Types: deb\nURIs: http://x/\n {URI}\nSuites: /\nSigned-By:\n -----BEGIN\n .\n =ab\n", True),
        ("a__sources", f"Types: deb\nURIs: {URI}\nSuites: jammy\nComponents: main\nSigned-By: /k.gpg\n", False),
        ("lockstep-nvidia__sources", f"Types: deb\nURIs: {URI}\nSuites: /\nSigned-By: /old.gpg\n", False),
    ],
)
def test_what_contradicts_our_description(tmp_path: Path, name: str, text: str, contradicts: bool) -> None:
    assert bool(apt_sources.contradicting(host(tmp_path, **{name: text}), URI, KEYRING)) is contradicts


def test_a_file_is_named_once(tmp_path: Path) -> None:
    text = f"deb [signed-by=/k.gpg] {URI}/ /\ndeb-src [signed-by=/k.gpg] {URI}/ /\n"
    others = apt_sources.contradicting(host(tmp_path, a__list=text), URI, KEYRING)
    (problem,) = package_problems.described_twice(others, URI, KEYRING)
    assert problem.fix == "mv /etc/apt/sources.list.d/a.list /etc/apt/sources.list.d/a.list.disabled"
