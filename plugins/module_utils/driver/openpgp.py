"""Fingerprints of the keys in a keyring, read without GnuPG: Debian 13 has none by default.

Format: RFC 4880 (packets 4.2, armour 6.2, fingerprints 12.2) and RFC 9580 for version 6.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_PUBLIC_KEY = 6  # a subkey is 14
_ARMOUR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.+?)-----END", re.DOTALL)


class NoKey(ValueError):
    """The bytes hold no OpenPGP public key that can be read."""


def fingerprints(keyring: bytes) -> tuple[str, ...]:
    """Of every primary key, in upper-case hexadecimal digits: 40 for version 4, 64 for version 6.

    Args:
        keyring: armoured (one or several blocks) or binary.

    Raises:
        NoKey: there is none, or the packets are cut off.
    """
    blocks = _ARMOUR.findall(keyring)
    try:
        packets = b"".join(_unarmoured(block) for block in blocks) if blocks else keyring
        found = tuple(_fingerprint(body) for tag, body in _packets(packets) if tag == _PUBLIC_KEY)
    except (IndexError, binascii.Error) as error:
        raise NoKey(f"no OpenPGP key ({error})") from error
    if not found:
        raise NoKey("no OpenPGP public key in it")
    return found


def _unarmoured(block: bytes) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")), validate=True)


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        tag = data[at]
        if not tag & 0x80:
            raise NoKey("no OpenPGP packet at its begin")
        length, start = _new_length(data, at + 1) if tag & 0x40 else _old_length(data, at + 1, tag & 3)
        if start + length > len(data):
            raise NoKey("its last packet is cut off")
        found.append((tag & 0x3F if tag & 0x40 else tag >> 2 & 0x0F, data[start : start + length]))
        at = start + length
    return found


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return (first - 192 << 8) + data[at + 1] + 192, at + 2
    if first < 255:
        raise NoKey("a packet in parts, which no key is")
    return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5


def _old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind == 3:
        return len(data) - at, at
    size = 1 << kind
    return int.from_bytes(data[at : at + size], "big"), at + size


def _fingerprint(body: bytes) -> str:
    if body[0] == 4:
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
    if body[0] == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise NoKey(f"a key of version {body[0]}, which apt does not take")
