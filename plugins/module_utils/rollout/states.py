"""Every state of a roll, a wave, a replica or a host by which the rollout decides: one documented code each.

Codes are what other code reads; the text beside them is for people. Values are what records, journals and playbooks carry.
"""

from __future__ import annotations

from ..core.codes import Code


class Mode(Code):
    """What a run is to do with the cluster."""

    CONVERGE = "converge"
    """site.yml: all that is due; hosts whose gates failed before are tried again."""
    UPGRADE = "upgrade"
    """upgrade_driver.yml: what a driver change needs, and nothing else; hosts that failed before are skipped."""
    UPGRADE_RUNTIME = "upgrade_runtime"
    """upgrade_runtime.yml: what a change of the lock (vLLM, Ray, torch) needs, and nothing else."""
    UPGRADE_MODEL = "upgrade_model"
    """upgrade_model.yml: what another model, its sizes or arguments need, and nothing else."""
    VERIFY = "verify"
    """verify.yml: nothing is changed, and every gate runs again."""
    ABORT = "abort"
    """upgrade_driver.yml -e rollout_action=abort: every host goes back to the driver that it ran before the open roll."""


class Step(Code):
    """What a host may need, in the order in which it is done."""

    PREPARE = "prepare"
    """Role gpu_host; done before the first wave, under whatever serves."""
    DRIVER = "driver"
    """Role nvidia_driver."""
    RUNTIME = "runtime"
    """Role serving_runtime."""
    RAY = "ray"
    """Ray's unit."""
    SERVE = "serve"
    """vLLM's unit; heads only."""
    GATES = "gates"
    """Gates have to pass (again) before it may serve."""
    START = "start"
    """Nothing changes, but it has to be started."""


class Need(Code):
    """Where a replica stands before the run."""

    UP_TO_DATE = "up_to_date"
    """It runs what the inventory declares and has its stamps."""
    HALF_DONE = "half_done"
    """A run changed it and ended before it was done; the next run finishes it first."""
    DUE = "due"
    """Something is due, and nothing was begun."""
    QUARANTINED = "quarantined"
    """A host of it is in a quarantine that this run does not lift (see ``admission.quarantine.QuarantineKind``)."""


class SkipCode(Code):
    """Why a replica is in no wave."""

    UP_TO_DATE = "up_to_date"
    OUTSIDE_LIMIT = "outside_limit"
    """``--limit`` does not name it."""
    SERVING = "serving"
    """It serves, and ``rollout_leave_serving`` takes only replicas that do not."""
    QUARANTINED = "quarantined"
    """See :attr:`Need.QUARANTINED`."""


class Stage(Code):
    """The stages of a wave, each a file of the same name in playbooks/shared/wave/."""

    CHECK_PACKAGES = "check_packages"
    """Later waves, hosts whose driver is due: their packages still let it be installed; read-only, everything serves on."""
    KEEP_SETTINGS = "keep_settings"
    """What the wave is about to change of serving environment and settings is kept on the host; everything serves on."""
    DRAIN_REPLICA = "drain_replica"
    """The router and vLLM drain, engine and Ray stop, the hosts go into quarantine of kind ``changing``."""
    APPLY = "apply"
    """Driver, serving environment and units become what the inventory declares."""
    HOST_GATES = "host_gates"
    """Driver, NCCL and graph gates within each host."""
    STAMP_HOSTS = "stamp_hosts"
    """Network gate on all hosts at once, then the host stamps."""
    START_RAY = "start_ray"
    REPLICA_GATES = "replica_gates"
    """NCCL and graph gates across the replica's hosts, then the replica stamp."""
    START_ENGINE = "start_engine"
    """vLLM starts and proves a completion; the hosts leave quarantine."""
    ENABLE_IN_ROUTER = "enable_in_router"
    """HAProxy sends it requests."""
    BAKE = "bake"
    """It serves as well as before, for ``rollout_bake_seconds``."""
    ACCEPT_DRIVER = "accept_driver"
    """Driver and settings are marked last known good: a later rollback leads here."""
    RESTORE_SETTINGS = "restore_settings"
    """Rollback only: serving environment, Ray's and vLLM's settings become what they were."""
    RESTORE_DRIVER = "restore_driver"
    """Rollback only: the last known good driver is installed and loaded."""
    ACCEPT_RESTORED = "accept_restored"
    """Rollback only: the changes of driver and settings are closed where they began."""
    UNKNOWN = "unknown"
    """None: the host became unreachable before its first stage began."""


class RequestAction(Code):
    """What a person requests of a roll."""

    PAUSE = "pause"
    """End after the wave under way; the request stays until it is resumed."""
    ABORT = "abort"
    """End after the wave under way, for good: what was changed is to be rolled back by an abort."""
    RESUME = "resume"
    """Withdraw the request; never stored."""


class LockAction(Code):
    """What became of a claim to the rollout lock."""

    TAKE = "take"
    RENEW = "renew"
    REFUSE = "refuse"


class RollbackOutcome(Code):
    """What became of a wave that failed, once its rollback ended."""

    NOT_POSSIBLE = "not_possible"
    """No host of it had a driver or settings to go back to, or nothing was changed: nothing was rolled back."""
    ROLLED_BACK = "rolled_back"
    """It passed its gates again and serves."""
    DRAINED_IN_ROUTER = "drained_in_router"
    """Rolled back and serving, but a router could not be reached to enable it; the next run does that."""
    FAILED = "failed"
    """A host could not be rolled back; it stays in quarantine."""
