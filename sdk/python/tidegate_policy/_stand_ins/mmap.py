"""Stand-in for files in memory."""

import errno

ACCESS_DEFAULT, ACCESS_READ, ACCESS_WRITE, ACCESS_COPY = range(4)
ALLOCATIONGRANULARITY = PAGESIZE = 65536
MAP_SHARED, MAP_PRIVATE, MAP_ANON, MAP_ANONYMOUS = 1, 2, 32, 32
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4

error = OSError


class mmap:
    def __new__(cls, *_args, **_options):
        raise OSError(errno.ENODEV, "a policy has no files to map")
