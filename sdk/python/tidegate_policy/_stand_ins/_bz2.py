"""Stand-in for bzip2, which is not compiled into a component's Python."""


class BZ2Compressor:
    def __init__(self, *_args, **_options):
        raise OSError("a policy has no bzip2: zlib and gzip work")


class BZ2Decompressor(BZ2Compressor):
    pass
