"""What code that runs as ``lockstep`` can plant on a host that serves (docs/security.md): root is not led by it."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.e2e.lab import Lab, Play, eventually
from tests.e2e.test_outsider import OUTSIDER, reaches
from tests.e2e.test_site import answers

pytestmark = pytest.mark.long

HEAD, WORKER = "a1", "a2"
HOME = "/var/lib/lockstep/engine"
NEW = "550.90.07"
METRICS = "/var/lib/prometheus/node-exporter/lockstep.prom"


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Play:
    for playbook in ("site.yml", "playbooks/metrics.yml"):
        play = lab.play(playbook)
        assert play.rc == 0, play.explained()
    return play


def as_user(lab: Lab, host: str, script: str, user: str = "lockstep") -> str:
    return lab.on(host, f"runuser -u {user} -- sh -c {shlex.quote(script)}", check=False)


PLANTED = {
    "a FIFO": "mkfifo /run/lockstep/engine.json",
    "a link to what never ends": "ln -s /dev/zero /run/lockstep/engine.json",
    "a link to the shadow file": "ln -s /etc/shadow /run/lockstep/engine.json",
    "findings that are numbers": """echo '{"phase":"serving","findings":[1]}' > /run/lockstep/engine.json""",
    "brackets without end": "head -c 200000 /dev/zero | tr '\\0' '[' > /run/lockstep/engine.json",
    "evidence that is /etc": f"rm -rf {HOME}/evidence; ln -s /etc {HOME}/evidence; mkfifo /run/lockstep/engine.json",
}


@pytest.mark.parametrize("planted", PLANTED)
def test_one_user_of_one_host_stops_neither_status_nor_metrics(lab: Lab, serving: Play, planted: str) -> None:
    as_user(lab, WORKER, PLANTED[planted])
    try:
        (replica,) = lab.status()["replicas"]
        assert replica["engine"] == "serving"
        assert "root:" not in str(replica)
        lab.on(WORKER, "systemctl start lockstep-metrics.service")
        assert re.search(r"^lockstep_collect_errors\{.*\} 1$", lab.on(WORKER, f"cat {METRICS}"), re.MULTILINE)
    finally:
        lab.on(WORKER, f"rm -rf /run/lockstep/engine.json; test ! -L {HOME}/evidence || rm {HOME}/evidence")


def test_metrics_see_the_packet_filter_with_the_rights_of_their_unit(lab: Lab, serving: Play) -> None:
    lab.on(WORKER, "systemctl start lockstep-metrics.service")
    assert re.search(r"^lockstep_filter_ok\{.*\} 1$", lab.on(WORKER, f"cat {METRICS}"), re.MULTILINE)


def test_who_serves_does_not_lift_a_quarantine(lab: Lab, serving: Play) -> None:
    site = f"{HOME}/.local/lib/python3.11/site-packages"
    as_user(lab, WORKER, f"mkdir -p {site} && printf 'import os\\nos._exit(0)\\n' > {site}/usercustomize.py")
    try:
        record = '{"kind": "operator", "reason": "a test", "owner": "me", "run": "none", "at": "2026-11-22T00:30:00Z"}'
        lab.on(
            WORKER,
            f"echo {shlex.quote(record)} > /var/lib/lockstep/quarantine.json; systemctl restart lockstep-ray",
            check=False,
        )
        shown = lab.on(WORKER, "systemctl show -p ActiveState -p Result lockstep-ray")
        assert set(shown.split()) == {"ActiveState=inactive", "Result=exec-condition"}
        assert "refused: a2 is in quarantine" in lab.on(WORKER, "journalctl -u lockstep-ray -n 20 -o cat")
    finally:
        lab.on(WORKER, f"rm -rf /var/lib/lockstep/quarantine.json {HOME}/.local; systemctl start lockstep-ray")
    eventually("the replica serves again", lambda: bool(lab.status()["replicas"][0]["serving"]), 600)


def found(lab: Lab, host: str, user: str, expression: str) -> list[str]:
    """What ``find`` finds of Lockstep's folders as a user."""
    folders = "/etc/lockstep /run/lockstep /run/lockstep-requests /var/lib/lockstep"
    return as_user(lab, host, f"find {folders} {expression} -print 2>/dev/null; true", user).split()


def test_who_may_read_what(lab: Lab, serving: Play) -> None:
    for host in (HEAD, WORKER):
        public = {f"/etc/lockstep/{name}.json" for name in ("host", "ray", "filter", "tunnel")}  # addresses and ports
        assert set(found(lab, host, "nobody", "-type f -readable")) <= public
        of_root = found(lab, host, "lockstep", "-type f -user root -readable")
        assert "/etc/lockstep/ray.env" in of_root
        kept = ("/manifest/", "/evidence/", "-token", "-key")
        assert not [path for path in of_root if any(part in path for part in kept)]
        his = ("/var/lib/lockstep/engine/", "/var/lib/lockstep/ray/", "/run/lockstep/")
        assert not [
            path for path in found(lab, host, "lockstep", "-maxdepth 2 -writable") if not f"{path}/".startswith(his)
        ]


VICTIM = "/root/of-root-alone"
# Again and again, as lockstep, on a host that is being rolled: whatever root may come to write or read is a link to a file of
# root's, a FIFO, or never ends. On a head the engine's own report is left to it: what he says of himself is his.
PLANTER = f"""
import contextlib, glob, itertools, os, sys, time
reports_itself = sys.argv[1] == "head"
home, run = "{HOME}", "/run/lockstep"
ends_python = home + "/.local/lib/python3.11/site-packages/usercustomize.py"

def replace(path, make):
    with contextlib.suppress(OSError):
        scratch = path + ".planted"
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        make(scratch)
        os.replace(scratch, path)

def link(to):
    return lambda path: os.symlink(to, path)

def text(content):
    def make(path):
        with open(path, "w") as file:
            file.write(content)
    return make

os.makedirs(os.path.dirname(ends_python), exist_ok=True)
replace(ends_python, text("import os; os._exit(0)"))
for number in itertools.count():
    for name in ("drain.json", "move-up.json", "filter.json"):
        replace(run + "/" + name, link("{VICTIM}"))
    for scratch in glob.glob(run + "/.drain.json.*"):
        replace(scratch, link("{VICTIM}"))
    if not reports_itself:
        plant = (os.mkfifo, link("/dev/zero"), link("{VICTIM}"), text("[" * 200000))[number % 4]
        replace(run + "/engine.json", plant)
        replace(run + "/ray.json", plant) if number % 40 == 0 else None
    for folder in glob.glob("/tmp/*/") + glob.glob("/var/tmp/*/"):
        if os.stat(folder).st_uid == os.getuid():
            replace(folder + "nccl.host.1.log", link("{VICTIM}"))
    with contextlib.suppress(OSError):
        os.rename(home + "/evidence", home + "/evidence.was")
        os.symlink("/etc", home + "/evidence")
    time.sleep(0.05)
"""


def test_a_roll_ends_well_while_he_plants_all_of_it(lab: Lab, serving: Play) -> None:
    for host, role in ((HEAD, "head"), (WORKER, "worker")):
        lab.on(host, f"umask 077; echo a-secret-of-root > {VICTIM}")
        unit = "systemd-run --quiet --collect --unit=planter --uid=lockstep --property=Restart=always"
        lab.on(host, f"{unit} python3 -I -c {shlex.quote(PLANTER)} {role}")
    try:
        play = lab.play("playbooks/upgrade_driver.yml", extra={"nvidia_driver_version": NEW})
        assert play.rc == 0, play.explained()
        assert "a-secret-of-root" not in play.text
        (replica,) = lab.status()["replicas"]
        assert replica["serving"]
        for host in (HEAD, WORKER):
            assert lab.on(host, "systemctl is-active planter") == "active"
            assert lab.on(host, "cat /sys/module/nvidia/version") == NEW
            assert lab.on(host, f"stat -c '%a %U' {VICTIM}; cat {VICTIM}").split() == [
                "600",
                "root",
                "a-secret-of-root",
            ]
            assert lab.on(host, "grep -rl a-secret-of-root /var/lib/lockstep /run/lockstep-requests || true") == ""
    finally:
        for host in (HEAD, WORKER):
            lab.on(host, "systemctl stop planter", check=False)
            lab.on(host, f"rm -rf {VICTIM} {HOME}/.local /run/lockstep/{{drain,move-up,filter}}.json")
            lab.on(
                host,
                f"test ! -L {HOME}/evidence || rm {HOME}/evidence; mv {HOME}/evidence.was {HOME}/evidence",
                check=False,
            )
        lab.on(WORKER, "rm -f /run/lockstep/engine.json /run/lockstep/ray.json")


def test_what_serves_begins_nothing_to_others_and_serves(lab: Lab, serving: Play) -> None:
    """gpu_host_filter_egress: []: the gates, Ray and vLLM come up without anybody but their replica."""
    assert reaches(lab, HEAD, OUTSIDER, "lockstep"), "it cannot be reached at all, so this proves nothing"
    limited = lab.play(extra={"gpu_host_filter_egress": []})
    try:
        assert limited.rc == 0, limited.explained()
        assert answers(lab)
        for host, peer in (HEAD, WORKER), (WORKER, HEAD):
            assert not reaches(lab, host, OUTSIDER, "lockstep")
            assert reaches(lab, host, peer, "lockstep")
            assert reaches(lab, host, OUTSIDER, "root")
    finally:
        back = lab.play()
        assert back.rc == 0, back.explained()
    assert reaches(lab, HEAD, OUTSIDER, "lockstep")
