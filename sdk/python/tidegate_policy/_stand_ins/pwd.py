"""Stand-in for the list of users, which is empty."""

from collections import namedtuple

struct_passwd = namedtuple("struct_passwd", "pw_name pw_passwd pw_uid pw_gid pw_gecos pw_dir pw_shell")


def getpwall():
    return []


def getpwnam(name, /):
    raise KeyError(f"getpwnam(): name not found: {name!r}")


def getpwuid(uid, /):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
