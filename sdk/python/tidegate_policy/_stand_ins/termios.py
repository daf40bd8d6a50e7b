"""Stand-in for terminals."""

import errno

TCSANOW, TCSADRAIN, TCSAFLUSH = range(3)
TCIFLUSH, TCOFLUSH, TCIOFLUSH = range(3)
ISIG, ICANON, ECHO, ECHOE, ECHOK, ECHONL, IEXTEN = 1, 2, 8, 16, 32, 64, 32768
BRKINT, INPCK, ISTRIP, ICRNL, IXON, OPOST, CSIZE, PARENB, CS8 = 2, 16, 32, 256, 1024, 1, 48, 256, 48
VTIME, VMIN = 5, 6
TIOCGWINSZ = 0x5413


class error(Exception):
    """An error of a terminal."""


def tcgetattr(*_args):
    raise error(errno.ENOTTY, "a policy has no terminal")


tcdrain = tcflow = tcflush = tcgetwinsize = tcsendbreak = tcsetattr = tcsetwinsize = tcgetattr
