"""How a piece of work on a model ended, where it may come from, and what is asked of the worker: one code each."""

from __future__ import annotations

from ..core.codes import Code


class Verb(Code):
    """What is asked."""

    STAGE = "stage"
    """Bring the model to its folder, visible once it is whole."""
    VERIFY = "verify"
    """Hash every file of it."""
    PRUNE = "prune"
    """Remove staged models that nobody wants."""
    WARM = "warm"
    """Read it into the page cache."""


class Kind(Code):
    """Where a model comes from."""

    HUB = "hub"
    """A repository of Hugging Face's hub, or of what ``HF_ENDPOINT`` names."""
    HTTP = "http"
    """A folder of files over HTTP or HTTPS, with SHA256SUMS."""
    PATH = "path"
    """A folder that the host can read, such as one on NFS."""
    CONTROLLER = "controller"
    """A folder of the controller, sent over Ansible's own connection."""


class Result(Code):
    """How it ended."""

    DONE = "done"
    DEADLINE = "deadline"
    """More time may help; what was brought is kept."""
    UPLOAD = "upload"
    """The controller has to send files (kind ``controller``)."""
    NO_ROOM = "no_room"
    NO_SOURCE = "no_source"
    """The source is not there, does not answer, or lacks a file."""
    REFUSED = "refused"
    """The source wants another token."""
    NO_CHECKSUMS = "no_checksums"
    """Nothing says what the files have to be."""
    DAMAGED = "damaged"
    """A file is not what the manifest says, or is missing."""
    NOT_STAGED = "not_staged"
    """There is no manifest: staging did not make it, or it is not there."""
    TAKEN = "taken"
    """Another model has that name."""
    NOT_OURS = "not_ours"
    """The folder of models belongs to somebody else, or is a link."""
    FAILED = "failed"
