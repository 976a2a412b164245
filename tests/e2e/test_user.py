"""What code that runs as ``lockstep`` can plant on a host that serves (docs/security.md): root is not led by it."""

from __future__ import annotations

import shlex

import pytest

from tests.e2e.lab import Lab, Play, eventually

pytestmark = pytest.mark.long

HEAD, WORKER = "a1", "a2"
HOME = "/var/lib/lockstep/engine"
METRICS = "/var/lib/prometheus/node-exporter/lockstep.prom"


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Play:
    play = lab.play()
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
        assert "lockstep_collect_errors 1\n" in lab.on(WORKER, f"cat {METRICS}") + "\n"
    finally:
        lab.on(WORKER, f"rm -rf /run/lockstep/engine.json; test ! -L {HOME}/evidence || rm {HOME}/evidence")


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
        shown = lab.on(WORKER, "systemctl show -P ActiveState -P Result lockstep-ray")
        assert shown.split() == ["inactive", "exec-condition"]
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
        public = {"/etc/lockstep/host.json", "/etc/lockstep/ray.json"}
        assert set(found(lab, host, "nobody", "-type f -readable")) <= public
        of_root = found(lab, host, "lockstep", "-type f -user root -readable")
        assert "/etc/lockstep/ray.env" in of_root
        kept = ("/manifest/", "/evidence/", "-token", "-key")
        assert not [path for path in of_root if any(part in path for part in kept)]
        his = ("/var/lib/lockstep/engine/", "/var/lib/lockstep/ray/", "/run/lockstep/")
        assert not [
            path for path in found(lab, host, "lockstep", "-maxdepth 2 -writable") if not f"{path}/".startswith(his)
        ]
