"""Stand-in for limits of processes."""

import errno

RLIM_INFINITY = -1
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE = range(8)
RLIMIT_OFILE, RLIMIT_MEMLOCK, RLIMIT_AS = 7, 8, 9
RUSAGE_SELF, RUSAGE_CHILDREN = 0, -1

error = OSError


def getrlimit(resource, /):
    return (RLIM_INFINITY, RLIM_INFINITY)


def getrusage(who, /):
    raise OSError(errno.ENOSYS, "a policy has no process to measure")


def setrlimit(resource, limits, /):
    raise OSError(errno.ENOSYS, "a policy has no process to limit")


def getpagesize():
    return 65536
