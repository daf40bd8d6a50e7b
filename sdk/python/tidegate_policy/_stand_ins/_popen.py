"""Stand-in for the start of processes by ``multiprocessing``."""

import errno


class Popen:
    method = "spawn"

    def __init__(self, *_args, **_options):
        raise OSError(errno.ENOSYS, "a policy has no processes")
