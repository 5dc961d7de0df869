"""Compute identities: SHA-256 over canonical JSON, fixed when a task is created. Pure.

template = tool, name, command and arguments; node = template + node args; task = node + task args. Values are compared
as recorded text, so 1 and "1" are the same. The JSON has no spaces, is encoded as UTF-8, and lists values in the sorted
order of their names (the names themselves are part of the template).
"""

from __future__ import annotations

from binascii import hexlify
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.client.arguments import Arguments

DIGEST_BYTES: Final = 32
_BYTE_VALUES: Final = 256
_encode = msgspec.json.Encoder().encode
_first_bits = Struct(">Q").unpack_from


def template_digest(tool_name: str, template_name: str, command_template: str, arguments: Arguments) -> bytes:
    """Return the identity of a template version.

    The version of the tool is not part of it: scripts that name it and scripts that use "latest" mean the same
    template.
    """
    parts = [
        tool_name,
        template_name,
        command_template,
        arguments.node_args,
        arguments.task_args,
        arguments.op_args,
    ]
    return sha256(_encode(parts)).digest()


def node_prefix(template: bytes) -> bytes:
    """Return the beginning of the canonical JSON shared by all nodes of a template."""
    return b'["' + template.hex().encode() + b'",'


def identity(prefix: bytes, node_values: Sequence[str], task_values: Sequence[str]) -> bytes:
    """Return the digests of a node and of its task, concatenated.

    Raises:
        UnicodeEncodeError: a value contains half a surrogate pair.
    """
    node = sha256(prefix + _encode(node_values) + b"]").digest()
    return node + sha256(b'["%b",%b]' % (hexlify(node), _encode(task_values))).digest()


def number(digests: bytes, at: int = 0) -> int:
    """Return the first 60 bits of the digest that begins at a position, for use as a Python hash."""
    return int(_first_bits(digests, at)[0]) >> 4


def digest_of(digests: Iterable[bytes]) -> bytes:
    """Return the digest of a set of digests, regardless of their order."""
    return sha256(b"".join(sorted(digests))).digest()


def digest_of_many(digests: Iterable[bytes]) -> bytes:
    """Return the same as `digest_of`, but sort in portions so that a million digests are never objects at once."""
    portions = [bytearray() for _ in range(_BYTE_VALUES)]
    for digest in digests:
        portions[digest[0]] += digest
    whole = sha256()
    for portion in map(bytes, portions):
        whole.update(b"".join(sorted([portion[at : at + DIGEST_BYTES] for at in range(0, len(portion), DIGEST_BYTES)])))
    return whole.digest()
