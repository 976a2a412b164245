"""All work in the folder of models, as the user ``lockstep``: started by ``lockstep-model.service`` with a request of root's.

``python3 isolated.py lockstep.model.worker``: the request and the hub's token are systemd's credentials; the answer and what
goes on are files of the unit's runtime folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..core import records, typed
from . import request as exchange
from . import store
from .codes import Result, Verb
from .prune import prune
from .request import Answer, Request
from .stage import Tools, gib, stage
from .warm import warm

REQUEST, TOKEN = "request", "hub-token"
ANSWER, PROGRESS = "answer.json", "progress.json"
_PAUSE = 2.0


def work(request: Request, tools: Tools) -> Answer:
    """Do what is asked."""
    os.umask(0o027)
    try:
        if request.verb is Verb.STAGE:
            return stage(request, tools)
        if request.verb is Verb.VERIFY:
            return verify(request, tools)
        return prune(request) if request.verb is Verb.PRUNE else warm(request)
    except OSError as error:
        return Answer(Result.FAILED, f"{error.filename or request.folder}: {error.strerror or error}")


def verify(request: Request, tools: Tools) -> Answer:
    """Hash every file of a staged model."""
    folder = Path(request.folder) / request.name
    try:
        have = store.read_manifest(folder)
    except ValueError as error:
        return Answer(Result.DAMAGED, f"{folder}: its manifest {error}")
    if have is None:
        return Answer(Result.NOT_STAGED, f"{folder} has no manifest: it was not staged, or is not there")
    total = have.size
    wrong = store.damaged(have.files, folder, lambda read: tools.tell(f"checked {gib(read)} of {gib(total)}"))
    if wrong:
        named = "; ".join(f"{folder}/{problem}" for problem in wrong[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        files = {problem.path: problem.problem for problem in wrong}
        return Answer(Result.DAMAGED, named + more, digest=have.digest, bytes=total, files=files)
    return Answer(Result.DONE, digest=have.digest, bytes=total)


def progress_to(path: Path) -> Callable[[str], None]:
    """Writes what goes on to a file, every few seconds at most."""
    last = [0.0]

    def tell(text: str) -> None:
        if time.monotonic() - last[0] >= _PAUSE:
            last[0] = time.monotonic()
            records.write(path, {"text": text, "at": records.now()}, 0o640)

    return tell


def main() -> None:
    """Read the request, work, write the answer."""
    credentials, runtime = Path(os.environ["CREDENTIALS_DIRECTORY"]), Path(os.environ["RUNTIME_DIRECTORY"])
    os.environ["HOME"] = str(runtime)
    token = credentials / TOKEN
    tools = Tools(token if token.exists() else None, tell=progress_to(runtime / PROGRESS))
    record = json.loads((credentials / REQUEST).read_text(encoding="utf-8"))
    number = record.pop("id")
    try:
        request = exchange.request(record)
        os.environ.update(request.environment)
        answer = work(request, tools)
    except typed.BadAnswer as error:
        answer = Answer(Result.FAILED, f"the request cannot be used: {error}")
    records.write(runtime / ANSWER, {"id": number, "answer": answer.as_record()}, 0o640)
    sys.exit(0)


if __name__ == "__main__":
    main()
