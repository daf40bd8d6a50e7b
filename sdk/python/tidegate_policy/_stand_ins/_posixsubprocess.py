"""Stand-in for the start of processes."""

import errno


def fork_exec(*_args, **_options):
    raise OSError(errno.ENOSYS, "a policy has no processes")
