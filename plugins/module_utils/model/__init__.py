"""A model's files on local disk: brought from where they are, checked against a manifest, removed when nobody wants them.

Root reads and writes nothing below the folder of models, which belongs to the user ``lockstep``: all work there is done as that
user by ``worker``, in a transient unit under whatever serves.
"""
