"""What one supervisor serves: its configuration, its host, its stamp; and the environment that vLLM gets."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from ..admission.stamps import ReplicaStamp
from ..core import host_record, records
from ..core.host_record import HostRecord
from ..core.systemd import credential
from ..ray.ports import ray_ports
from ..runtime import caches
from .config import Config

# vLLM hands its environment on to Ray's workers; these are not for them.
_NOT_FOR_WORKERS = ("VLLM_API_KEY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH",
                    "VLLM_CONFIG_ROOT", "PYTHONPATH", "INVOCATION_ID", "JOURNAL_STREAM", "RAY_ADDRESS")  # fmt: skip
_DEFAULTS = {"NCCL_DEBUG": "WARN"}  # else NCCL says nothing at all of why it fails


@dataclasses.dataclass(frozen=True)
class Replica:
    """All that is fixed for a supervisor's life.

    Attributes:
        config: engine.json.
        host: host.json of the head.
        stamp: the replica stamp.
        vllm: the program.
        api_key: of vLLM's API; None where it has none.
        accepted_keys: a file with that key and others that clients may still send; None where there are none.
    """

    config: Config
    host: HostRecord
    stamp: ReplicaStamp
    vllm: Path
    api_key: str | None
    accepted_keys: Path | None = None

    @property
    def address(self) -> str:
        return str(self.host["address"])

    @property
    def api_address(self) -> str:
        return host_record.api_address(self.host)

    @property
    def base_url(self) -> str:
        return f"http://{self.api_address}:{self.config.ports.api}"

    @property
    def key_arguments(self) -> list[str]:
        """The file that vLLM reads several keys from, as one that it goes by; the arguments hold no key, its log neither."""
        return ["--config", str(self.accepted_keys)] if self.accepted_keys else []

    def environment(self) -> dict[str, str]:
        """vLLM's environment: what systemd gave, what the replica's network needs, what the operator wants on top.

        vLLM passes it on to its workers, which keep what ray_node_environment gave them.
        """
        root = records.STATE / "engine" / "config"
        root.mkdir(parents=True, exist_ok=True)
        (root / "ray_non_carry_over_env_vars.json").write_text(json.dumps(_NOT_FOR_WORKERS), encoding="utf-8")
        given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NOTIFY_SOCKET")}
        env = {**_DEFAULTS, **given}
        interface = host_record.ranks_interface(self.host)
        env |= {
            "VLLM_HOST_IP": self.address,
            "GLOO_SOCKET_IFNAME": interface,
            "NCCL_SOCKET_IFNAME": interface,
            "TP_SOCKET_IFNAME": interface,
            "RAY_ADDRESS": f"{self.host['head']['address']}:{ray_ports().gcs}",
            "VLLM_CONFIG_ROOT": str(root),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_COLOR": "0",
            "PYTHONFAULTHANDLER": "1",
            **caches.environment(),
            **caches.hub_environment(self.config.cache),
            **self.config.environment,
        }
        if self.api_key:
            env["VLLM_API_KEY"] = self.api_key
        ray_token = credential("ray-token")
        if ray_token is not None:
            env["RAY_AUTH_TOKEN_PATH"] = str(ray_token)
        return env
