"""Stand-in for xz, which is not compiled into a component's Python."""

CHECK_NONE, CHECK_CRC32, CHECK_CRC64, CHECK_SHA256, CHECK_ID_MAX, CHECK_UNKNOWN = 0, 1, 4, 10, 15, 16
FILTER_DELTA, FILTER_X86, FILTER_POWERPC, FILTER_IA64, FILTER_ARM, FILTER_ARMTHUMB, FILTER_SPARC = range(3, 10)
FILTER_LZMA1, FILTER_LZMA2 = 0x4000000000000001, 0x21
FORMAT_AUTO, FORMAT_XZ, FORMAT_ALONE, FORMAT_RAW = range(4)
MF_HC3, MF_HC4, MF_BT2, MF_BT3, MF_BT4 = 3, 4, 18, 19, 20
MODE_FAST, MODE_NORMAL = 1, 2
PRESET_DEFAULT, PRESET_EXTREME = 6, 1 << 31


class LZMAError(Exception):
    """An error of the xz library."""


def _encode_filter_properties(*_args, **_options):
    raise LZMAError("a policy has no xz: zlib and gzip work")


_decode_filter_properties = _encode_filter_properties


def is_check_supported(check_id):
    return False


class LZMACompressor:
    __init__ = _encode_filter_properties


class LZMADecompressor(LZMACompressor):
    pass
