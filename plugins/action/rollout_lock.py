"""One roll per cluster: the action behind lockstep.vllm.rollout_lock (documented in plugins/modules/rollout_lock.py)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Literal, cast

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.lock_record import Claim
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import lock as rollout_lock
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import LockAction
from ansible_collections.lockstep.vllm.plugins.modules import rollout_lock as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import identity, stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.heads import HeadsAction

Identity = identity.Identity
Answers = Mapping[str, Answer]
Do = Literal["hold", "try"]


class ActionModule(HeadsAction):
    """The first head decides between two controllers that come at once; the others follow, all or nothing."""

    DOCUMENTATION = documented.DOCUMENTATION
    REQUIRED_IF = (("state", "held", ["run"]), ("state", "released", ["run"]))

    def act(self, arguments: Values, task_vars: Values) -> Values:
        self._variables = task_vars
        heads = self.heads(self._variables, arguments["without"])
        if arguments["state"] == "read" or (self._task.check_mode and arguments["state"] == "released"):
            return _result(self.ask(heads, {"do": "read"}, self._variables), changed=False)
        if self._task.check_mode:
            return {**self._hold(heads, arguments["run"], arguments["take_over"], "try"), "changed": False}
        if arguments["state"] == "released":
            answers = self.ask(heads, {"do": "release", "run": arguments["run"]}, self._variables)
            return _result(
                answers,
                changed=any(answer.value and answer.value.action == "release" for answer in answers.values()),
            )
        result = self._hold(heads, arguments["run"], arguments["take_over"])
        ends = time.monotonic() + arguments["seconds"]
        while not result.get("failed") and not result["request"] and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, rollout_lock.RENEWAL))
            result = {**self._hold(heads, arguments["run"], None), "changed": result["changed"]}
        return result

    def _hold(self, heads: list[str], run: str, take_over: str | None, do: Do = "hold") -> Values:
        here = identity.identity(os.getppid())
        claim = cast(Claim, {"run": run, **here, "take_over": [take_over] if take_over else []})
        answers: dict[str, Answer] = {}
        for some in (heads[:1], heads[1:]):
            answers |= self._claim(some, heads, {"do": do, "claim": claim}, here)
            problem = _problem(answers, here, claim)
            if problem:
                fresh = [host for host, answer in answers.items() if _action(answer) is LockAction.TAKE]
                if do == "hold":
                    self.ask(fresh, {"do": "release", "run": run}, self._variables)
                return {**_result(answers, False, do == "try"), **stops.refusal(problem)}
        taken = any(_action(answer) is LockAction.TAKE for answer in answers.values())
        return _result(answers, taken, do == "try")

    def _claim(
        self, hosts: list[str], heads: list[str], asked: rollout_lock.Asked, here: Identity
    ) -> dict[str, Answer]:
        """Claim the lock on ``hosts``; where its holder has ended, claim it again by that run's name.

        That is a dead process of this controller, or a run that has released the lock on another of the ``heads``.
        """
        claim = asked["claim"]
        living = [run for run in claim["take_over"] if self._lives(hosts, run, here)]
        first: Claim = {**claim, "take_over": []} if living else claim
        answers = self.ask(hosts, {**asked, "claim": first}, self._variables)
        refused = {host: answer.value.lock for host, answer in answers.items() if _action(answer) is LockAction.REFUSE}
        dead = {host: str(lock.get("run")) for host, lock in refused.items() if identity.known_dead(lock, here)}
        if len(dead) < len(refused):
            ended = self._ended(heads)
            dead |= {host: str(lock.get("run")) for host, lock in refused.items() if lock.get("run") in ended}
        if dead:
            again: Claim = {**claim, "take_over": sorted({*claim["take_over"], *dead.values()})}
            answers |= self.ask(list(dead), {**asked, "claim": again}, self._variables)
        return answers

    def _ended(self, heads: list[str]) -> set[str]:
        """Runs that have released the lock on any head: one that could not be reached then has theirs still."""
        seen = self.ask(heads, {"do": "read"}, self._variables).values()
        return {run for answer in seen if answer.value for run in answer.value.ended}

    def _lives(self, hosts: list[str], run: str, here: Identity) -> bool:
        """Whether ``run``, which is to be taken over, is a process of this machine that still runs."""
        seen = self.ask(hosts, {"do": "read"}, self._variables).values()
        locks = [answer.value.lock for answer in seen if answer.value and answer.value.lock]
        return any(lock.get("run") == run and identity.known_alive(lock, here) for lock in locks)


def _action(answer: Answer) -> LockAction | None:
    """What became of a claim; None where there is no answer to one."""
    return answer.value.action if isinstance(answer.value, rollout_lock.Claimed) else None


def _problem(answers: Answers, here: Identity, claim: Claim) -> Stop | None:
    refused = {host: answer.value.lock for host, answer in answers.items() if _action(answer) is LockAction.REFUSE}
    if refused:
        reason = rollout_lock.refusal(refused, records.now())
        alive = [str(lock["run"]) for lock in refused.values() if lock.get("run") in claim["take_over"]]
        if alive:
            here_alive = f"Run {alive[0]} cannot be taken over: it is alive on this controller: wait for it to end"
            return Stop(f"{reason.cause}. {here_alive}", rollout_lock.LOOK)
        return reason
    away = [host for host, answer in answers.items() if answer.value is None]
    silent = [f"{host}: {answers[host].error}" for host in away]
    if silent:
        return Stop(
            f"the rollout lock cannot be taken on every head: {'; '.join(silent)}. Repair the host, or, where it is gone for "
            f"good, run this again with -e '{{\"rollout_lock_without\": {json.dumps(away)}}}'",
            f"ansible {','.join(away)} -m ansible.builtin.ping",
        )
    return None


def _result(answers: Answers, changed: bool, tried: bool = False) -> Values:
    """``tried``: a claim that is answered with ``take`` has taken nothing."""
    values = {host: answer.value for host, answer in answers.items() if answer.value}
    there = {host: value for host, value in values.items() if not (tried and value.action == LockAction.TAKE)}
    locks = {host: value.lock for host, value in there.items() if value.lock is not None}
    return {
        "changed": changed,
        "locks": locks,
        "lock": next(iter(locks.values()), None),
        "request": rollout_lock.strongest([value.request for value in values.values()]),
        "silent": {host: answer.error for host, answer in answers.items() if answer.value is None},
        "unready": {host: value.unready for host, value in values.items() if isinstance(value, rollout_lock.Claimed)},
    }
