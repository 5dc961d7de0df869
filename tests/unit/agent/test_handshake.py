"""The handshake and the authenticated messages after it: valid exchanges, and every forgery."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys

import pytest

from jobmon.agent import handshake
from jobmon.agent.handshake import Client, Server, Unproven, identity_of, mac, verifier_of

TOKEN = "jobmon-agent.7.b3.5f"
ADDRESS = "10.0.0.1:8070"


def opened(token: str = TOKEN, known: str = TOKEN) -> tuple[Client, Server]:
    """Return both sides of a connection after the handshake."""
    client = Client(token, ADDRESS)
    hello = json.loads(json.dumps(client.hello))
    server = Server(hello["identity"], verifier_of(known), hello["address"], hello["nonce"])
    client.accept(json.loads(json.dumps(server.reply)))
    return client, server


def taken(server: Server, headers: dict[str, str], method: str, target: str, body: bytes) -> bool:
    """Return whether the server believes a request."""
    found = server.request(method, target).update(body).digest().hex()
    return server.takes_proof(headers.get(handshake.PROOF_HEADER, "")) and found == headers[handshake.MAC_HEADER]


def answered(server: Server, status: int, body: bytes) -> str:
    """Return the header of a response."""
    return server.response(status).update(body).digest().hex()


@pytest.mark.parametrize("key", [b"", b"k", b"k" * 64, b"k" * 65])
def test_mac_is_hmac_sha256(key: bytes) -> None:
    """Ours is the standard's."""
    assert mac(key, b"text") == hmac.new(key, b"text", hashlib.sha256).digest()


def test_both_sides_believe_each_other_request_after_request() -> None:
    """The proof goes with the first request only."""
    client, server = opened()
    for number in range(3):
        headers = client.seal("POST", "/api/v1/x?a=1", b"{}")
        assert (handshake.PROOF_HEADER in headers) == (number == 0)
        assert taken(server, headers, "POST", "/api/v1/x?a=1", b"{}")
        client.check(200, answered(server, 200, b"answer"), b"answer")


def test_the_token_is_in_no_message() -> None:
    """Neither the secret nor a key derived from it is sent."""
    client, server = opened()
    sent = json.dumps([client.hello, server.reply, client.seal("GET", "/", b"")])
    secret = TOKEN.rpartition(".")[2]
    assert f".{secret}" not in sent
    for key in (verifier_of(TOKEN).stored_key, verifier_of(TOKEN).server_key, handshake._client_key(TOKEN)):
        assert key.hex() not in sent


@pytest.mark.parametrize("reply", [None, {}, [], {"nonce": "00", "proof": "zz"}, {"nonce": "00", "proof": "00" * 32}])
def test_a_listener_without_the_token_is_not_believed(reply: object) -> None:
    """Whatever it answers."""
    with pytest.raises(Unproven):
        Client(TOKEN, ADDRESS).accept(reply)


def test_a_listener_with_another_token_is_not_believed() -> None:
    """An answer of a real server is accepted."""
    with pytest.raises(Unproven):
        opened(known=f"{TOKEN}0")


def test_a_recorded_answer_proves_nothing_to_the_next_connection() -> None:
    """Its nonce is another one."""
    first = Client(TOKEN, ADDRESS)
    recorded = Server(identity_of(TOKEN), verifier_of(TOKEN), ADDRESS, first.hello["nonce"]).reply
    with pytest.raises(Unproven):
        Client(TOKEN, ADDRESS).accept(recorded)


def test_an_answer_for_another_address_proves_nothing() -> None:
    """An impostor at our address that forwards the handshake to the server at its new address is detected."""
    client = Client(TOKEN, ADDRESS)
    reply = Server(identity_of(TOKEN), verifier_of(TOKEN), "10.0.0.1:9999", client.hello["nonce"]).reply
    with pytest.raises(Unproven):
        client.accept(reply)


def test_a_client_that_knows_the_verifier_only_is_refused() -> None:
    """The secrets stored by the server are not sufficient to act as a client."""
    client, server = opened()
    headers = client.seal("GET", "/", b"")
    headers[handshake.PROOF_HEADER] = verifier_of(TOKEN).stored_key.hex()
    assert not taken(server, headers, "GET", "/", b"")


@pytest.mark.parametrize(
    ("method", "target", "body"), [("PUT", "/a", b"1"), ("POST", "/b", b"1"), ("POST", "/a", b"2"), ("POST", "/a", b"")]
)
def test_a_changed_request_is_refused(method: str, target: str, body: bytes) -> None:
    """Method, target and body are covered."""
    client, server = opened()
    assert not taken(server, client.seal("POST", "/a", b"1"), method, target, body)


def test_a_repeated_request_is_refused() -> None:
    """The counter is covered."""
    client, server = opened()
    headers = client.seal("POST", "/a", b"1")
    assert taken(server, headers, "POST", "/a", b"1")
    assert not taken(server, headers, "POST", "/a", b"1")


@pytest.mark.parametrize(("status", "body"), [(200, b"no"), (409, b"yes")])
def test_a_changed_response_is_refused(status: int, body: bytes) -> None:
    """Status and body are covered."""
    client, server = opened()
    taken(server, client.seal("POST", "/a", b"1"), "POST", "/a", b"1")
    with pytest.raises(Unproven):
        client.check(status, answered(server, 200, b"yes"), body)


@pytest.mark.parametrize("sealed", ["", "zz", "00" * 32])
def test_a_response_without_a_mac_is_refused(sealed: str) -> None:
    """A missing header counts as a wrong one."""
    client, _ = opened()
    client.seal("POST", "/a", b"1")
    with pytest.raises(Unproven):
        client.check(200, sealed, b"{}")


def test_an_earlier_response_is_refused() -> None:
    """It has another counter."""
    client, server = opened()
    taken(server, client.seal("GET", "/a", b""), "GET", "/a", b"")
    earlier = answered(server, 200, b"{}")
    client.check(200, earlier, b"{}")
    client.seal("GET", "/a", b"")
    with pytest.raises(Unproven):
        client.check(200, earlier, b"{}")


@pytest.mark.parametrize(
    ("token", "identity"),
    [("sekret", "owner"), ("a.b", "owner"), ("jobmon-user.4.s3", "jobmon-user.4"), ("jobmon-", "owner")],
)
def test_the_identity_is_a_tokens_public_part(token: str, identity: str) -> None:
    """Only our own tokens have a name."""
    assert identity_of(token) == identity


def test_workers_load_it_without_hashlib() -> None:
    """Importing `hashlib` costs 4 MB in each worker."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import jobmon.agent.handshake; print('hashlib' in sys.modules)"
    source = handshake.__file__.rsplit("/jobmon/", 1)[0]
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code, source], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
