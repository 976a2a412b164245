"""The state of a driver of which nothing is wrong, for the tests of the driver gate."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state

VERSION = "550.127.05"
UUIDS = ("GPU-0", "GPU-1")
STATE: driver_state.FullDriverState = {
    "packages": {"libcuda1": {"version": f"{VERSION}-1", "hold": True, "broken": False}},
    "package_versions": [VERSION],
    "package_version": VERSION,
    "userspace_version": VERSION,
    "loaded_version": VERSION,
    "fabric_manager": {
        "package": "nvidia-fabricmanager",
        "package_version": VERSION,
        "version": VERSION,
        "active": True,
    },
    "nvswitches": 4,
    "fabric": {
        "switch_managers": 0,
        "ib_umad": False,
        "spans_hosts": False,
        "domain": None,
        "imex_active": None,
        "imex_channel": None,
    },
    "persistence": True,
    "modules": {"nvidia": {"refcount": 0, "used_by": []}},
    "refcount": 0,
    "gpus": [
        {
            "index": index,
            "name": "NVIDIA H100 80GB HBM3",
            "uuid": uuid,
            "memory_mib": 81559,
            "pci": None,
            "persistence": True,
        }
        for index, uuid in enumerate(UUIDS)
    ],
    "gpus_on_bus": [],
    "xids": [],
    "pending_reboot": False,
    "pending_reboot_packages": [],
    "dpkg_interrupted": False,
    "smi_failure": None,
    "smi_warnings": [],
}
