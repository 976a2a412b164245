"""The testbed's own acceptance: Ray over two hosts, vLLM with tensor parallelism 2, the known answer; no role involved."""

from __future__ import annotations

import json
import time

from testbed.lib import cluster, layout, shell, wheels
from testbed.lib.errors import TestbedError
from testbed.lib.layout import Instance

PLACE = "/opt/testbed-proof"
PORT = 8123
RAY_DEADLINE_S = 300.0
READY_DEADLINE_S = 1800.0  # a minute on an idle machine
REQUIREMENTS = (wheels.LOCK, layout.ROOT / "runtime" / "testbed-wheels.txt")


def _environment(instance: Instance, host: str, ray_port: int) -> str:
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_HOST_IP": instance.address(host),
        "GLOO_SOCKET_IFNAME": "eth0",
        "RAY_ADDRESS": f"{instance.address('a1')}:{ray_port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "testbed-proof",
        "VLLM_NO_USAGE_STATS": "1",
        "PATH": f"{PLACE}/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
    }
    return " ".join(f"{key}={value}" for key, value in variables.items())


def _install(instance: Instance, host: str) -> None:
    """Install lock and testbed wheels from the mirror, unless that was done; ``down`` removes it with the host."""
    if cluster.inside(instance, host, "sh", "-c", f"cat {PLACE}/done 2>/dev/null", check=False):
        return
    container = instance.container(host)
    cluster.inside(instance, host, "mkdir", "-p", PLACE)
    for file in (wheels.find_uv().resolve(), *REQUIREMENTS):
        shell.run(["podman", "cp", file, f"{container}:{PLACE}/{file.name}"])
    names = " ".join(f"-r {PLACE}/{file.name}" for file in REQUIREMENTS[:1])
    index = "--no-index --find-links http://mirror.testbed.test/wheels/ --no-cache"
    script = (
        f"cd {PLACE} && ./uv venv -q --clear -p {wheels.NODE_PYTHON} venv && "
        f"./uv pip install -q -p venv {index} --no-deps --require-hashes {names} && "
        f"./uv pip install -q -p venv {index} --no-deps -r {REQUIREMENTS[1].name} && echo done > done"
    )
    cluster.inside(instance, host, "sh", "-c", script)


def _ray(instance: Instance, host: str, ray_port: int) -> None:
    address = instance.address("a1")
    role = f"--head --port={ray_port} --dashboard-host=127.0.0.1" if host == "a1" else f"--address={address}:{ray_port}"
    cluster.inside(
        instance, host, "systemd-run", "--quiet", "--unit=testbed-proof-ray", "--collect", "--", "/usr/bin/env", "-i",
        *_environment(instance, host, ray_port).split(), f"{PLACE}/venv/bin/ray", "start", "--block",
        f"--node-ip-address={instance.address(host)}", "--num-gpus=1", *role.split(),
    )  # fmt: skip


def _ask(instance: Instance, path: str, body: dict[str, object] | None = None) -> str:
    argv = ["curl", "-sf", "--max-time", "120", f"http://127.0.0.1:{PORT}{path}"]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return cluster.inside(instance, "a1", *argv, check=False)


def prove(instance: Instance, facts: dict[str, str], arguments: list[str]) -> None:
    """Serve the tiny model over a1 and a2 and compare its answer; ``arguments`` are for ``vllm serve``."""
    port = 6399
    hosts = ("a1", "a2")
    for host in hosts:
        cluster.require(instance, host)
    clean(instance)
    try:
        with shell.step("serving environment on a1 and a2"):
            cluster.each(hosts, lambda host: _install(instance, host))
        with shell.step("Ray head and worker"):
            for host in hosts:
                _ray(instance, host, port)
            status = f"env {_environment(instance, 'a1', port)} {PLACE}/venv/bin/ray status 2>&1"
            cluster.wait_until(
                "2 GPUs in Ray",
                lambda: "/2.0 GPU" in cluster.inside(instance, "a1", "sh", "-c", status, check=False),
                RAY_DEADLINE_S,
                1,
            )
        with shell.step("vLLM ready, tensor parallel over both"):
            cluster.inside(
                instance, "a1", "systemd-run", "--quiet", "--unit=testbed-proof-vllm", "--collect", "--", "/usr/bin/env", "-i",
                *_environment(instance, "a1", port).split(), f"{PLACE}/venv/bin/vllm", "serve", "/srv/models/tiny",
                "--served-model-name=tiny", "--tensor-parallel-size=2", "--distributed-executor-backend=ray",
                f"--port={PORT}", "--host=127.0.0.1", "--max-model-len=256", *arguments,
            )  # fmt: skip
            cluster.wait_until(
                "vLLM's models",
                lambda: _alive(instance) and "tiny" in _ask(instance, "/v1/models"),
                READY_DEADLINE_S,
                1,
            )
        for which in ("first", "second"):
            start = time.monotonic()
            text = _ask(instance, "/v1/completions",
                        {"model": "tiny", "prompt": facts["proof_prompt"], "max_tokens": 64, "temperature": 0})  # fmt: skip
            answer = json.loads(text)["choices"][0]["text"] if text else None
            print(f"  {which} completion: {time.monotonic() - start:.1f} s: {answer!r}", flush=True)
            if answer != facts["proof_answer"]:
                raise TestbedError(f"expected {facts['proof_answer']!r}")
    finally:
        clean(instance)


def _alive(instance: Instance) -> bool:
    state = cluster.inside(instance, "a1", "systemctl", "is-active", "testbed-proof-vllm", check=False).strip()
    if state in ("active", "activating"):
        return True
    log = cluster.inside(
        instance, "a1", "journalctl", "-u", "testbed-proof-vllm", "-n", "25", "-o", "cat", "--no-pager", check=False
    )
    raise TestbedError(f"vLLM ended while starting:\n{log}")


def clean(instance: Instance) -> None:
    """Stop what the proof started."""
    for host in ("a1", "a2"):
        cluster.inside(instance, host, "systemctl", "stop", "testbed-proof-vllm", "testbed-proof-ray", check=False)
