"""Addresses of network streams: which are taken, and how they may stand in messages, without what is secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from gensdk_runtime.errors import InputError

PROTOCOLS = {
    "rtsp": ("rtsp", "rtp", "srtp", "udp", "tcp"),
    "rtsps": ("rtsps", "rtsp", "rtp", "srtp", "tls", "udp", "tcp"),
    "rtmp": ("rtmp", "tcp"),
    "http": ("http", "https", "httpproxy", "crypto", "tls", "tcp"),
    "https": ("https", "httpproxy", "crypto", "tls", "tcp"),
    "udp": ("udp",),
    "tcp": ("tcp",),
    "srt": ("srt",),
}
"""What an address may begin with, and the protocols of FFmpeg that it may lead to: never to a file. A server may
send from http on to https, not back."""

SETTINGS = frozenset(
    ("user", "username", "usr", "password", "passwd", "pass", "pwd", "token", "key", "auth", "channel", "subtype")
)
"""Names of settings in addresses of cameras; their values are never shown."""


def is_address(text: str) -> bool:
    """True if `text` is meant as an address, not as a file; one with a single slash is a misprint of one."""
    return "://" in text or text.partition(":/")[0].lower() in PROTOCOLS


def check_address(address: str) -> str:
    """`address` with its scheme in small letters, as FFmpeg wants it.

    Raises :class:`InputError` for anything but a printable address of one of :data:`PROTOCOLS` with a host.
    """
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme not in PROTOCOLS:
        known = re.fullmatch(r"[a-z0-9+.-]{1,40}", scheme)
        came = repr(scheme) if known else "something else"
        raise InputError(f"expected an address that begins with {'://, '.join(PROTOCOLS)}://, got {came}")
    if not address.isprintable() or " " in address:
        raise InputError(
            f"expected an address without spaces and control characters, got {masked(address)[:200]!r}; write %20"
        )
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, colon, port = authority.rpartition("@")[2].rpartition(":")
    if "@" in rest[len(authority) :] and colon and not (port.isdigit() or port.endswith("]")):
        raise InputError(
            f"expected a host and a port before the first / of {masked(address)[:200]!r}; in a password write "
            "/ as %2F, ? as %3F and # as %23"
        )
    try:
        found = urlsplit(f"{scheme}://{authority}").hostname
    except ValueError:
        found = None
    if not found and scheme != "udp":
        raise InputError(f"expected a host in the address {masked(address)[:200]!r}, found none")
    return f"{scheme}://{rest}"


def masked(text: str) -> str:
    """`text`, an address or what was meant as one, with ``***`` for all that may be secret.

    FFmpeg takes for user and password what stands before the last @ of what comes before the first / ? or #. Where
    there is an @ behind these, a password may hold one of them, and be cut there: then nothing is shown. In path
    and query the value of each setting is hidden, since the names of those that are secret can't all be known, and
    of RTMP the name of the stream, which is its key.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        on_a_drive = re.match(r"[A-Za-z]:[\\/]", text)
        if on_a_drive or not (is_address(text) or re.search(r":.*@|[?&;]\w+=", text, re.DOTALL)):
            return text  # a file's name, in which @ and = are letters
        scheme, rest = "", text
    elif not re.fullmatch(r"[A-Za-z0-9+.-]{1,40}", scheme):
        scheme = "***"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(authority) :]:
        return f"{scheme}{separator}***"
    if "@" in authority:
        rest = f"***@{rest.rpartition('@')[2]}"
    place, question, query = rest.partition("#")[0].partition("?")
    if "=" in place:  # some cameras take user and password in the path
        place, query = f"{place.partition('=')[0]}=***", "***" if query else ""
    query = "&".join(_setting(part) for part in query.split("&") if part)
    if scheme.lower().startswith("rtmp") and place.count("/") >= 2:
        place = f"{'/'.join(place.split('/')[:2])}/***"
    return "".join(c if c.isprintable() else "?" for c in f"{scheme}{separator}{place}{question}{query}")


def _setting(text: str) -> str:
    """A setting of a query with its name, where that is one of the usual, and can't be a part of a secret."""
    name, equals, _ = text.partition("=")
    return f"{name}=***" if equals and name.lower() in SETTINGS else "***"
