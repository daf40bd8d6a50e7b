"""Stand-in for libraries in C: types can be declared, libraries cannot be loaded."""

import errno


class _Type(type):
    """A type of C, which can be repeated."""

    def __mul__(cls, length):
        return _Type(f"{cls.__name__}_Array_{length}", (Array,), {"_type_": cls, "_length_": length})

    __rmul__ = __mul__

    def from_buffer(cls, *_args):
        _fail()

    from_address = from_buffer_copy = from_param = in_dll = from_buffer


def _fail(*_args, **_options):
    raise OSError(errno.ENOSYS, "a policy has no libraries in C")


class _SimpleCData(metaclass=_Type):
    def __init__(self, value=None):
        self.value = value


class ArgumentError(Exception):
    """An argument has the wrong type."""


class Array(metaclass=_Type):
    __init__ = _fail


class Structure(metaclass=_Type):
    __init__ = _fail


class Union(metaclass=_Type):
    __init__ = _fail


BigEndianStructure = LittleEndianStructure = Structure
BigEndianUnion = LittleEndianUnion = Union

_NAMES = """
c_bool c_byte c_char c_char_p c_double c_float c_int c_int8 c_int16 c_int32 c_int64 c_long c_longdouble c_longlong c_short c_size_t
c_ssize_t c_time_t c_ubyte c_uint c_uint8 c_uint16 c_uint32 c_uint64 c_ulong c_ulonglong c_ushort c_void_p c_voidp c_wchar
c_wchar_p py_object
"""
for _name in _NAMES.split():
    globals()[_name] = _Type(_name, (_SimpleCData,), {})


def POINTER(cls, /):
    return _Type(f"LP_{getattr(cls, '__name__', cls)}", (_SimpleCData,), {"_type_": cls})


def CFUNCTYPE(restype, *argtypes, **_options):
    return _Type("CFunctionType", (Structure,), {"_restype_": restype, "_argtypes_": argtypes})


PYFUNCTYPE = CFUNCTYPE


class CDLL:
    def __init__(self, name, *_args, **_options):
        raise OSError(f"{name}: a policy has no libraries in C")


class PyDLL(CDLL):
    pass


class LibraryLoader:
    def __init__(self, dlltype):
        self._dlltype = dlltype

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._dlltype(name)

    def LoadLibrary(self, name):
        return self._dlltype(name)

    __getitem__ = LoadLibrary


cdll = LibraryLoader(CDLL)
pydll = LibraryLoader(PyDLL)

DEFAULT_MODE, RTLD_LOCAL, RTLD_GLOBAL = 0, 0, 256

addressof = alignment = byref = cast = memmove = memset = pointer = resize = sizeof = string_at = wstring_at = _fail
create_string_buffer = create_unicode_buffer = _fail


def get_errno():
    return 0


def set_errno(value, /):
    return 0
