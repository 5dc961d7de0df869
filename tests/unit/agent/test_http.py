"""Workers parse HTTP answers correctly wherever they are split."""

import pytest

from jobmon.agent import addresses, http
from jobmon.agent.handshake import Unproven
from jobmon.agent.http import Conversation, Reader

BODY = b'{"a": 1}'


def answer_of(head, body=BODY):
    return b"HTTP/1.1 " + head + b"\r\n\r\n" + body


CHUNKED = answer_of(b"200 OK\r\nTransfer-Encoding: chunked", b'3;x=y\r\n{"a\r\n5\r\n": 1}\r\n0\r\nTrailer: x\r\n\r\n')


def read(data, pieces, *, ends=False):
    reader = Reader()
    for start in range(0, len(data), pieces):
        if (answer := reader.feed(data[start : start + pieces])) is not None:
            return answer
    return reader.feed(b"") if ends else None


def test_interim_responses_without_an_end_are_refused():
    reader = Reader()
    with pytest.raises(ValueError, match="does not begin"):
        reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * (http.INTERIM_MAX + 1))


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("data", "keeps_open"),
    [
        (answer_of(b"200 OK\r\ncontent-length: 8"), True),
        (answer_of(b"200 OK\r\nContent-Length:8\r\nConnection: Close"), False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer_of(b"200 OK\r\ncontent-length: 8"), True),
        (CHUNKED, True),
    ],
)
def test_an_answer_is_read_in_any_pieces(data, keeps_open, pieces):
    answer = read(data, pieces)
    assert (answer.status, answer.content, answer.keeps_open) == (200, {"a": 1}, keeps_open)
    assert all(read(data[:end], pieces) is None for end in range(len(data)))


@pytest.mark.parametrize("pieces", [1, 5, 1000])
def test_an_answer_without_a_length_ends_with_the_connection(pieces):
    assert read(answer_of(b"200 OK"), pieces) is None
    answer = read(answer_of(b"200 OK"), pieces, ends=True)
    assert (answer.content, answer.keeps_open) == ({"a": 1}, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'{"a": ', b"[" * 100_000])
def test_what_is_no_json_has_its_status_and_no_content(body):
    answer = read(answer_of(b"429 Too Many\r\nretry-after: 7\r\ncontent-length: %d" % len(body), body), 1000)
    assert (answer.status, answer.content, answer.retry_after) == (429, None, 7.0)


def test_no_content_needs_no_length():
    assert read(answer_of(b"204 No Content", b""), 1).status == 204


@pytest.mark.parametrize("value", [b"Wed, 21 Oct 2026 07:28:00 GMT", b"-1", b"9" * 100, b""])
def test_a_pause_that_cannot_be_understood_is_none(value):
    assert read(answer_of(b"503 x\r\nretry-after: " + value + b"\r\ncontent-length: 0", b""), 1000).retry_after == 0.0


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 x\r\n\r\n",
        answer_of(b"200 OK\r\ncontent-length: x"),
        answer_of(b"200 OK\r\ncontent-length: -8"),
        answer_of(b"200 OK\r\ncontent-length: 9999999999999"),
        answer_of(b"200 OK\r\ntransfer-encoding: chunked", b"-3\r\n"),
        b"x" * (http.HEAD_BYTES_MAX + 1),
        answer_of(b"200 OK\r\ntransfer-encoding: chunked", b"1" * (http.HEAD_BYTES_MAX + 1)),
    ],
)
def test_junk_is_refused(data):
    with pytest.raises(ValueError):
        Reader().feed(data)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200", answer_of(b"200 OK\r\ncontent-length: 9"), CHUNKED[:-5]])
def test_an_answer_that_is_cut_off_is_no_answer(data):
    reader = Reader()
    assert not data or reader.feed(data) is None
    with pytest.raises(ConnectionError):
        reader.feed(b"")


def test_a_request_names_host_and_prefix():
    address = addresses.parse("https://[::1]:8443/jobmon")
    head, _, body = Conversation(address, "t", is_local=False).request("/worker/start", b"{}").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /jobmon/api/v1/worker/start HTTP/1.1",
        b"Host: [::1]:8443",
        b"Authorization: Bearer t",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]
    assert body == b"{}"


def test_over_plain_http_the_token_is_never_sent_and_the_server_proves_itself_first():
    conversation = Conversation(addresses.parse("http://host:8070"), "jobmon-agent.1.-.sekret", is_local=False)
    assert not conversation.is_open
    assert b"sekret" not in conversation.opening()
    for answer in (answer_of(b"200 OK\r\ncontent-length: 8"), answer_of(b"404 x\r\ncontent-length: 0", b"")):
        with pytest.raises(Unproven):
            conversation.accept(read(answer, 1000))
    assert conversation.accept(read(answer_of(b"401 x\r\ncontent-length: 0", b""), 1000)) is False
    assert not conversation.is_open


def test_on_the_unix_socket_no_token_is_sent():
    conversation = Conversation(addresses.parse("http://host:8070"), "sekret", is_local=True)
    assert conversation.is_open
    assert b"sekret" not in conversation.request("/worker/start", b"{}")
