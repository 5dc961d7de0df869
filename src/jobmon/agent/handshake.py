"""Prove over TCP that both sides know a token, without sending it, and authenticate all messages (decision 23).

One round trip opens a connection: the client sends the name of its credential and a nonce. The server answers with its
own nonce and is the first to prove that it knows the token. Every later request and response carries a MAC that covers
a counter, so that no attacker between the two can change, inject, replay or reorder messages. The messages are not
encrypted: use https for secrets.

The server need not store the token: its `Verifier` suffices to check a client, but not to impersonate one (as in SCRAM,
RFC 5802).

Pure: no sockets, no HTTP. Workers load this module (`python -I -S`). So SHA-256 comes from the interpreter's C module,
which needs 0.1 MB instead of `hashlib`'s 4 MB.
"""

from __future__ import annotations

import os
from _operator import _compare_digest

try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # Python before 3.12
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:  # an interpreter built without these modules
        from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Hash(Protocol):
        """The methods of a hash object that this module needs."""

        def update(self, data: bytes, /) -> None: ...
        def digest(self) -> bytes: ...
        def copy(self) -> Hash: ...


ROUTE = "/handshake"
#: Header of every message after the server's proof.
MAC_HEADER = "Jobmon-Mac"
#: Header of the first request after the server's proof.
PROOF_HEADER = "Jobmon-Proof"
#: The identity of a token that does not name a credential: the server's own token.
OWNER = "owner"
#: Prefix of tokens that name their credential: "jobmon-agent.7.a3.MAC", "jobmon-user.7.SECRET".
NAMED_PREFIX = "jobmon-"
NONCE_BYTES = 16
_BLOCK_BYTES = 64
_INNER = bytes(one ^ 0x36 for one in range(256))
_OUTER = bytes(one ^ 0x5C for one in range(256))


class Unproven(ConnectionError):
    """The other side did not prove that it is the Jobmon server."""


class Mismatch(Unproven):
    """The other side answered like a Jobmon server, but its proof is for another token."""


class Mac:
    """Incremental HMAC-SHA256 (RFC 2104); `hmac` would import `hashlib`."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = sha256(key).digest()
        key = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner: Hash = sha256(key.translate(_INNER))
        self._outer: Hash = sha256(key.translate(_OUTER))

    def copy(self) -> Mac:
        """Return a copy of the current state."""
        other = Mac.__new__(Mac)
        other._inner, other._outer = self._inner.copy(), self._outer.copy()
        return other

    def update(self, data: bytes) -> Mac:
        """Add data to the message; return self."""
        self._inner.update(data)
        return self

    def digest(self) -> bytes:
        """Return the authentication code of the message so far."""
        outer = self._outer.copy()
        outer.update(self._inner.digest())
        return outer.digest()


def mac(key: bytes, message: str | bytes) -> bytes:
    """Return the HMAC-SHA256 of a message."""
    return Mac(key).update(message.encode() if isinstance(message, str) else message).digest()


def is_same(one: bytes, other: bytes) -> bool:
    """Return whether two values are equal, in a time that does not depend on where they differ."""
    return _compare_digest(one, other)


def identity_of(token: str) -> str:
    """Return the public part of a token, which names the credential."""
    return token.rpartition(".")[0] if token.startswith(NAMED_PREFIX) and "." in token else OWNER


class Verifier:
    """The data that a server needs to check a client, and to prove itself to a client.

    Args:
        stored_key: SHA-256 of the client's key.
        server_key: the key with which the server proves itself.
    """

    __slots__ = ("server_key", "stored_key")

    def __init__(self, stored_key: bytes, server_key: bytes) -> None:
        self.stored_key = stored_key
        self.server_key = server_key


def _client_key(token: str) -> bytes:
    return mac(token.encode(), "jobmon client")


def verifier_of(token: str) -> Verifier:
    """Return the verifier of a token."""
    return Verifier(sha256(_client_key(token)).digest(), mac(token.encode(), "jobmon server"))


def has_token(verifier: Verifier, token: str) -> bool:
    """Return whether a verifier belongs to a token."""
    return is_same(sha256(_client_key(token)).digest(), verifier.stored_key)


def nonce() -> str:
    """Return a new nonce."""
    return os.urandom(NONCE_BYTES).hex()


def _said(identity: str, address: str, client_nonce: str, server_nonce: str) -> str:
    return f"jobmon handshake 1\n{identity}\n{address}\n{client_nonce}\n{server_nonce}"


class _Exchange:
    """The messages of one connection after the handshake. A request and its response share one counter value."""

    def __init__(self, stored_key: bytes, said: str) -> None:
        self._mac = Mac(mac(stored_key, f"session\n{said}"))
        self.count = 0

    def request(self, method: str, target: str) -> Mac:
        """Increment the counter and return the MAC of the next request; the caller feeds it the body.

        Args:
            method: the HTTP method in capitals.
            target: path and query exactly as in the request line.
        """
        self.count += 1
        return self._mac.copy().update(f"request\n{self.count}\n{method}\n{target}\n".encode("latin-1"))

    def response(self, status: int) -> Mac:
        """Return the MAC of the response to the last request; the caller feeds it the body."""
        return self._mac.copy().update(f"response\n{self.count}\n{status}\n".encode())


class Client:
    """The client's side of one connection.

    Args:
        token: the secret, which is not sent.
        address: the address we connect to, as "host:port".
    """

    def __init__(self, token: str, address: str) -> None:
        self._token = token
        self._address = address
        self._nonce = nonce()
        self._exchange: _Exchange | None = None
        self._proof = ""

    @property
    def hello(self) -> dict[str, str]:
        """The body of the request that opens the connection: POST `ROUTE`."""
        return {"identity": identity_of(self._token), "address": self._address, "nonce": self._nonce}

    def accept(self, reply: Any) -> None:
        """Check the server's proof.

        Args:
            reply: the decoded body of the answer, with `nonce` and `proof`.

        Raises:
            Unproven: the reply contains no proof.
            Mismatch: the proof is for another token.
        """
        try:
            server_nonce, proof = str(reply["nonce"]), bytes.fromhex(reply["proof"])
        except (KeyError, TypeError, ValueError):
            raise Unproven("the program at that address did not prove that it is the Jobmon server") from None
        said = _said(identity_of(self._token), self._address, self._nonce, server_nonce)
        if not is_same(proof, mac(mac(self._token.encode(), "jobmon server"), f"server\n{said}")):
            raise Mismatch("the program at that address has a different token")
        client_key = _client_key(self._token)
        stored_key = sha256(client_key).digest()
        self._proof = _xor(client_key, mac(stored_key, f"client\n{said}")).hex()
        self._exchange = _Exchange(stored_key, said)

    def seal(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Return the headers of the next request."""
        assert self._exchange is not None, "the server must prove its identity first"
        headers = {MAC_HEADER: self._exchange.request(method, target).update(body).digest().hex()}
        if self._exchange.count == 1:
            headers[PROOF_HEADER] = self._proof
        return headers

    def check(self, status: int, sealed: str, body: bytes) -> None:
        """Check a response to the last request.

        Args:
            status: HTTP status.
            sealed: the value of the header `MAC_HEADER`; "" if it is missing.
            body: the body as received.

        Raises:
            Unproven: the server did not write this response.
        """
        assert self._exchange is not None, "the server must prove its identity first"
        try:
            found = bytes.fromhex(sealed)
        except ValueError:
            found = b""
        if not is_same(found, self._exchange.response(status).update(body).digest()):
            raise Unproven("the response did not come from the Jobmon server, or was modified in transit")


class Server:
    """The server's side of one connection.

    Args:
        identity: the name of the client's credential, as sent by the client.
        verifier: the verifier of that credential.
        address: the address that the client connected to, as sent by the client.
        client_nonce: the nonce sent by the client.
    """

    def __init__(self, identity: str, verifier: Verifier, address: str, client_nonce: str) -> None:
        self.identity = identity
        self._nonce = nonce()
        self._said = _said(identity, address, client_nonce, self._nonce)
        self._verifier = verifier
        self._exchange = _Exchange(verifier.stored_key, self._said)
        self.is_proved = False

    @property
    def reply(self) -> dict[str, str]:
        """The body of the answer to the client's first message."""
        return {"nonce": self._nonce, "proof": mac(self._verifier.server_key, f"server\n{self._said}").hex()}

    def takes_proof(self, proof: str) -> bool:
        """Return whether the client has proved that it knows the token.

        Args:
            proof: the value of the header `PROOF_HEADER`; "" if it is missing, as it may be after the first request.
        """
        if self.is_proved:
            return True
        try:
            given = bytes.fromhex(proof)
        except ValueError:
            return False
        client_key = _xor(given, mac(self._verifier.stored_key, f"client\n{self._said}"))
        self.is_proved = is_same(sha256(client_key).digest(), self._verifier.stored_key)
        return self.is_proved

    def request(self, method: str, target: str) -> Mac:
        """Count a request and return its MAC; the caller feeds it the body and compares it with `MAC_HEADER`."""
        return self._exchange.request(method, target)

    def response(self, status: int) -> Mac:
        """Return the MAC of the response to the last request; the caller feeds it the body."""
        return self._exchange.response(status)


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(left ^ right for left, right in zip(one, other, strict=False))
