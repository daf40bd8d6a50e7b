"""Stand-in for OpenSSL: contexts can be made and configured, connections cannot."""

import os

OPENSSL_VERSION = "OpenSSL 3.0.0 (stand-in: a policy has no TLS)"
OPENSSL_VERSION_INFO = _OPENSSL_API_VERSION = (3, 0, 0, 0, 0)
OPENSSL_VERSION_NUMBER = 0x30000000
_DEFAULT_CIPHERS = "DEFAULT"

HAS_SNI = HAS_ECDH = HAS_ALPN = HAS_TLSv1_2 = HAS_TLSv1_3 = HAS_TLS_UNIQUE = True
HAS_NPN = HAS_SSLv2 = HAS_SSLv3 = HAS_TLSv1 = HAS_TLSv1_1 = False
HAS_PHA = HAS_PSK = HAS_PSK_TLS13 = False

# The numbers are those of OpenSSL 3.
_NUMBERS = """
CERT_NONE=0 CERT_OPTIONAL=1 CERT_REQUIRED=2 ENCODING_DER=2 ENCODING_PEM=1
HOSTFLAG_ALWAYS_CHECK_SUBJECT=1 HOSTFLAG_NO_WILDCARDS=2 HOSTFLAG_NO_PARTIAL_WILDCARDS=4 HOSTFLAG_MULTI_LABEL_WILDCARDS=8
HOSTFLAG_SINGLE_LABEL_SUBDOMAINS=16 HOSTFLAG_NEVER_CHECK_SUBJECT=32
OP_ALL=2147483728 OP_CIPHER_SERVER_PREFERENCE=4194304 OP_ENABLE_KTLS=8 OP_ENABLE_MIDDLEBOX_COMPAT=1048576
OP_IGNORE_UNEXPECTED_EOF=128 OP_LEGACY_SERVER_CONNECT=4 OP_NO_COMPRESSION=131072 OP_NO_RENEGOTIATION=1073741824 OP_NO_SSLv2=0
OP_NO_SSLv3=33554432 OP_NO_TICKET=16384 OP_NO_TLSv1=67108864 OP_NO_TLSv1_1=268435456 OP_NO_TLSv1_2=134217728
OP_NO_TLSv1_3=536870912 OP_SINGLE_DH_USE=0 OP_SINGLE_ECDH_USE=0
PROTOCOL_TLS=2 PROTOCOL_TLS_CLIENT=16 PROTOCOL_TLS_SERVER=17 PROTOCOL_TLSv1=3 PROTOCOL_TLSv1_1=4 PROTOCOL_TLSv1_2=5
PROTO_MAXIMUM_SUPPORTED=-1 PROTO_MINIMUM_SUPPORTED=-2 PROTO_SSLv3=768 PROTO_TLSv1=769 PROTO_TLSv1_1=770 PROTO_TLSv1_2=771
PROTO_TLSv1_3=772
SSL_ERROR_SSL=1 SSL_ERROR_WANT_READ=2 SSL_ERROR_WANT_WRITE=3 SSL_ERROR_WANT_X509_LOOKUP=4 SSL_ERROR_SYSCALL=5
SSL_ERROR_ZERO_RETURN=6 SSL_ERROR_WANT_CONNECT=7 SSL_ERROR_EOF=8 SSL_ERROR_INVALID_ERROR_CODE=10
VERIFY_DEFAULT=0 VERIFY_CRL_CHECK_LEAF=4 VERIFY_CRL_CHECK_CHAIN=12 VERIFY_X509_STRICT=32 VERIFY_ALLOW_PROXY_CERTS=64
VERIFY_X509_TRUSTED_FIRST=32768 VERIFY_X509_PARTIAL_CHAIN=524288
"""
_ALERTS = """
CLOSE_NOTIFY=0 UNEXPECTED_MESSAGE=10 BAD_RECORD_MAC=20 RECORD_OVERFLOW=22 DECOMPRESSION_FAILURE=30 HANDSHAKE_FAILURE=40
BAD_CERTIFICATE=42 UNSUPPORTED_CERTIFICATE=43 CERTIFICATE_REVOKED=44 CERTIFICATE_EXPIRED=45 CERTIFICATE_UNKNOWN=46
ILLEGAL_PARAMETER=47 UNKNOWN_CA=48 ACCESS_DENIED=49 DECODE_ERROR=50 DECRYPT_ERROR=51 PROTOCOL_VERSION=70
INSUFFICIENT_SECURITY=71 INTERNAL_ERROR=80 USER_CANCELLED=90 NO_RENEGOTIATION=100 UNSUPPORTED_EXTENSION=110
CERTIFICATE_UNOBTAINABLE=111 UNRECOGNIZED_NAME=112 BAD_CERTIFICATE_STATUS_RESPONSE=113 BAD_CERTIFICATE_HASH_VALUE=114
UNKNOWN_PSK_IDENTITY=115
"""
for _prefix, _text in (("", _NUMBERS), ("ALERT_DESCRIPTION_", _ALERTS)):
    for _pair in _text.split():
        _name, _, _number = _pair.partition("=")
        globals()[_prefix + _name] = int(_number)

_OBJECTS = (
    (129, "serverAuth", "TLS Web Server Authentication", "1.3.6.1.5.5.7.3.1"),
    (130, "clientAuth", "TLS Web Client Authentication", "1.3.6.1.5.5.7.3.2"),
)


class SSLError(OSError):
    """An error of TLS."""

    library = reason = None


class SSLZeroReturnError(SSLError):
    """The peer closed the connection."""


class SSLWantReadError(SSLError):
    """A read would block."""


class SSLWantWriteError(SSLError):
    """A write would block."""


class SSLSyscallError(SSLError):
    """A system call failed."""


class SSLEOFError(SSLError):
    """The connection ended early."""


class SSLCertVerificationError(SSLError, ValueError):
    """A certificate is not valid."""


def _fail(*_args, **_options):
    raise SSLError(1, "a policy has no TLS connections")


class _Setting:
    """A property of a context that a subclass can extend with ``super()``, as ``ssl.SSLContext`` does."""

    def __init__(self, default):
        self.default = default

    def __set_name__(self, owner, name):
        self.name = f"_setting_{name}"

    def __get__(self, context, owner=None):
        return self if context is None else getattr(context, self.name, self.default)

    def __set__(self, context, value):
        setattr(context, self.name, value)


class _SSLContext:
    check_hostname = _Setting(False)
    keylog_filename = _Setting(None)
    maximum_version = _Setting(-1)
    minimum_version = _Setting(771)
    num_tickets = _Setting(2)
    options = _Setting(2147483728)
    post_handshake_auth = _Setting(False)
    protocol = _Setting(2)
    security_level = _Setting(2)
    sni_callback = _Setting(None)
    verify_flags = _Setting(32768)
    verify_mode = _Setting(0)
    _host_flags = _Setting(4)
    _msg_callback = _Setting(None)

    def __new__(cls, protocol, *_args, **_options):
        context = super().__new__(cls)
        _SSLContext.protocol.__set__(context, protocol)
        if protocol == 16:
            context.verify_mode = 2
            context.check_hostname = True
        return context

    def _ignore(self, *_args, **_options):
        """Nothing is loaded, because nothing will be verified."""

    load_cert_chain = load_dh_params = load_verify_locations = set_ciphers = set_ecdh_curve = _ignore
    set_default_verify_paths = set_psk_client_callback = set_psk_server_callback = _set_alpn_protocols = _ignore
    _wrap_bio = _wrap_socket = _fail

    def cert_store_stats(self):
        return {"x509": 0, "crl": 0, "x509_ca": 0}

    def get_ca_certs(self, binary_form=False):
        return []

    def get_ciphers(self):
        return []

    def session_stats(self):
        return {}


class MemoryBIO:
    __init__ = _fail


class SSLSession:
    __init__ = _fail


def get_default_verify_paths():
    return ("SSL_CERT_FILE", "/etc/ssl/cert.pem", "SSL_CERT_DIR", "/etc/ssl/certs")


def nid2obj(nid):
    return _find(lambda found: found[0] == nid)


def txt2obj(txt, name=False):
    return _find(lambda found: txt == found[3] or name and txt in found)


def _find(matches):
    for found in _OBJECTS:
        if matches(found):
            return found
    raise ValueError("unknown object")


def RAND_bytes(n):
    return os.urandom(n)


def RAND_status():
    return True


def RAND_add(*_args):
    """The gateway's randomness needs no seed."""
