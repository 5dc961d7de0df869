"""Send many large requests in sequence: the next one is built while the last is answered."""

import http.server
import json
import threading

import pytest

from jobmon.core.exceptions import InvalidRequest
from jobmon.core.requester import OVERLAPPED_BYTES_MIN, Requester

#: What nothing waits for that works.
TIMEOUT_SECONDS = 10
LARGE = "x" * OVERLAPPED_BYTES_MIN


class Server(http.server.ThreadingHTTPServer):
    """Answers with the number it was sent. `before` is called with it: it returns a status, or None to hang up."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.numbers = []
        self.before = lambda number: 200

    def handle_error(self, request, client_address):
        """A client that hung up is no error."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        number = json.loads(self.rfile.read(int(self.headers["content-length"])))["number"]
        self.server.numbers.append(number)
        status = self.server.before(number)
        if status is None:
            self.close_connection = True
            return
        found = {"number": number} if status == 200 else {"kind": "InvalidRequest", "message": f"not {number}"}
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.01,))
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def requester(server):
    opened = Requester(f"http://127.0.0.1:{server.server_address[1]}", request_timeout=TIMEOUT_SECONDS)
    yield opened
    opened.close()


def messages(count, text=LARGE):
    return (("/route", {"number": number, "text": text}) for number in range(count))


@pytest.mark.parametrize("text", ["", LARGE])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_answer_comes_in_order(server, requester, count, text):
    answers = list(requester.call_each(messages(count, text), dict))
    assert [answer["number"] for answer in answers] == server.numbers == list(range(count))


def test_the_next_is_made_while_the_last_is_answered(server, requester):
    made = [threading.Event() for _ in range(3)]
    server.before = lambda number: 200 if number == 2 or made[number + 1].wait(TIMEOUT_SECONDS / 2) else 400

    def noted():
        for number, message in enumerate(messages(3)):
            made[number].set()
            yield message

    assert len(list(requester.call_each(noted(), dict))) == 3
    assert server.numbers == [0, 1, 2]


@pytest.mark.parametrize("status", [None, 503])
def test_what_was_not_answered_is_sent_again_before_the_next(server, requester, status):
    server.before = lambda number: status if server.numbers.count(1) == 1 and number == 1 else 200
    answers = list(requester.call_each(messages(3), dict))
    assert [answer["number"] for answer in answers] == [0, 1, 2]
    assert server.numbers == [0, 1, 1, 2]


def test_nothing_more_is_sent_after_a_refusal(server, requester):
    server.before = lambda number: 422 if number == 1 else 200
    answers = requester.call_each(messages(5), dict)
    assert next(answers)["number"] == 0
    with pytest.raises(InvalidRequest, match="not 1"):
        next(answers)
    assert server.numbers == [0, 1]


def test_what_is_under_way_is_left_alone_when_the_caller_stops(server, requester):
    answers = requester.call_each(messages(5), dict)
    next(answers)
    answers.close()
    assert requester.call("/route", {"number": 9}, dict) == {"number": 9}
    assert [number for number in server.numbers if number != 1] == [0, 9]
