"""Stand-in for semaphores between processes."""

import errno


class SemLock:
    SEM_VALUE_MAX = 2147483647

    def __init__(self, *_args, **_options):
        raise OSError(errno.ENOSYS, "a policy has no processes")


def sem_unlink(*_args):
    raise FileNotFoundError(errno.ENOENT, "there is no such semaphore")
