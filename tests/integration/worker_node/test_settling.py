"""Real workers and packed jobs, with a server or proxy that gives every kind of answer."""

import itertools
import json

import pytest
from stand_in import JOB, NO_TASKS, TASK, StandIn, certificate, has_openssl, http, kept, packed, problem, single

OURS = {"server_identity": "cafe", "server_incarnation": "1"}
KEEPING = [
    http(401, {"message": "no"}),
    http(401, problem("Unauthorized")),
    http(403, b"<html>"),
    http(404, problem("NotFound")),
    http(404, b"<html>"),
    http(409, problem("InvalidRequest")),
    http(413, b"<html>"),
    http(400, b"<html>"),
    http(429, {"message": "no"}),
    http(502, b"<html>"),
    http(200, b"<html>Please log in</html>"),
    http(200),
    http(200, [1]),
    http(204),
    http(302, b"", location="/login"),
    b"SSH-2.0-x\r\n\r\n",
]


class Server:
    """Hands out one task to a worker, or some to a packed job; each request with reports gets the next answer."""

    def __init__(self, *answers, commands=("echo done",), named=None):
        self.answers = itertools.chain(answers[:-1], itertools.repeat(answers[-1]))
        self.commands, self.named = list(commands), named or {}
        self.is_begun = False

    def __call__(self, route, message):
        if route.endswith("/start"):
            return http(200, {**TASK, **self.named, "command": self.commands[0]})
        if message.get("wait_seconds"):
            return None
        if route.endswith("/take") and not self.is_begun:
            self.is_begun = True
            return http(200, {**self.taken(len(self.commands)), **self.named})
        answer = next(self.answers) if message["reports"] else self.good
        answer = answer(message) if callable(answer) else answer
        return self.good if answer == "good" else answer

    def taken(self, count):
        ids = list(range(7, 7 + count))
        tasks = {"task_instance_ids": ids, "task_ids": ids, "names": ["t"] * count, "commands": self.commands}
        tasks = {**tasks, "attempts": [1] * count} if count else NO_TASKS
        return {"job": JOB, "tasks": tasks, "kill": [], "over": True, "has_work": False}

    @property
    def good(self):
        return http(200, {**self.taken(0), **self.named})


@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize("answer", KEEPING)
def test_an_answer_that_records_nothing_keeps_the_report_on_disk(tmp_path, run, answer):
    with StandIn(Server(answer)) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}")
    assert code == 0, said
    assert len(server.reports) >= 2, "it was sent again"
    assert kept(tmp_path) == ["7.report"]
    (path,) = (tmp_path / "data" / "reports").glob("*/*")
    assert json.loads(path.read_text())["reports"][0]["status"] == "D"


@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize("answer", KEEPING)
def test_a_report_is_delivered_once_the_server_can_be_spoken_to_again(tmp_path, run, answer):
    with StandIn(Server(answer, answer, "good")) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}", JOBMON_WORKER_REPORT_SECONDS="20")
    assert code == 0, said
    assert {one["task_instance_id"] for one in server.reports} == {7}
    assert kept(tmp_path) == []


@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize("named", [{}, OURS])
def test_our_server_says_that_the_attempt_is_over(tmp_path, run, named):
    with StandIn(Server(http(409, problem("AttemptOver", **named)), "good", named=named)) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}")
    assert (code, kept(tmp_path)) == (0, []), said
    assert len(server.reports) == 1


@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize("answer", [{"kill": []}, problem("AttemptOver")])
@pytest.mark.parametrize("identity", [{}, {"server_identity": "beef"}])
def test_another_server_settles_nothing(tmp_path, run, answer, identity):
    of_another = http(200 if "kill" in answer else 409, {**Server("good").taken(0), **answer, **identity})
    with StandIn(Server(of_another, named=OURS)) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}")
    assert code == 0, said
    assert kept(tmp_path) == ["7-cafe.report"]


@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize("is_problem", [True, False])
def test_a_report_about_an_unknown_attempt_is_set_aside(tmp_path, run, is_problem):
    server = Server("good", named=OURS)
    known = {**server.taken(0), **OURS, "unknown": [7]}
    answer = http(404, problem("AttemptUnknown", **OURS)) if is_problem else http(200, known)
    server.answers = itertools.chain([answer], itertools.repeat("good"))
    with StandIn(server) as there:
        _, said = run(tmp_path, f"http://127.0.0.1:{there.port}")
    assert kept(tmp_path) == ["7-cafe.report.unknown-1"]
    assert "does not accept" in said
    assert len(there.reports) == 1


@pytest.mark.parametrize("run", [single, packed])
def test_a_report_that_our_server_cannot_read_is_set_aside(tmp_path, run):
    with StandIn(Server(http(422, problem("ValidationError")), "good")) as server:
        _, said = run(tmp_path, f"http://127.0.0.1:{server.port}")
    assert kept(tmp_path) == ["7.report.refused"]
    assert "ValidationError!" in said
    assert len(server.reports) == 1


@pytest.mark.parametrize("run", [single, packed])
def test_a_report_that_is_too_large_loses_its_log_tail(tmp_path, run):
    def answer(message):
        return http(413) if any(one["log_tail"] for one in message["reports"]) else "good"

    with StandIn(Server(answer, commands=["head -c 20000 /dev/zero"])) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}")
    assert (code, kept(tmp_path)) == (0, []), said
    assert [bool(one["log_tail"]) for one in server.reports] == [True, False]


def test_one_faulty_report_of_a_packed_job_does_not_hold_the_others_up(tmp_path):
    seen = set()

    def answer(message):
        ids = {one["task_instance_id"] for one in message["reports"]}
        if 9 in ids:
            return http(422, problem("ValidationError"))
        seen.update(ids)
        return "good"

    refused = [http(429)] * 3  # until all have ended
    with StandIn(Server(*refused, answer, commands=["true"] * 6)) as server:
        _, said = packed(tmp_path, f"http://127.0.0.1:{server.port}", JOBMON_WORKER_REPORT_SECONDS="20")
    assert seen == {7, 8, 10, 11, 12}, said
    assert kept(tmp_path) == ["9.report.refused"]


def test_a_packed_job_sends_less_when_less_is_taken(tmp_path):
    taken, farewells = [], []

    def answer(message):
        if len(message["reports"]) > 2:
            return http(413)
        taken.extend(one["task_instance_id"] for one in message["reports"])
        farewells.append(message["leaving"])
        return "good"

    with StandIn(Server(http(429), http(429), http(429), answer, commands=["true"] * 8)) as server:
        code, said = packed(tmp_path, f"http://127.0.0.1:{server.port}", JOBMON_WORKER_REPORT_SECONDS="20")
    assert (code, kept(tmp_path)) == (0, []), said
    assert sorted(taken) == list(range(7, 15))
    assert not any(farewells[:-1]), "it reports its exit last"
    assert server.told[-1][1]["leaving"]


@pytest.mark.parametrize("run", [single, packed])
def test_what_earlier_workers_left_is_delivered_once(tmp_path, run):
    report = {"reports": [{"task_instance_id": 2, "status": "D", "log_tail": None}], "alive": []}
    beside, private = tmp_path / "data" / "logs" / "3" / "0", tmp_path / "data" / "reports" / "3"
    beside.mkdir(parents=True)
    private.mkdir(mode=0o700, parents=True)
    (beside / "2.report").write_text(json.dumps(report))
    report["reports"][0]["task_instance_id"] = 3
    (private / "3.report").write_text(json.dumps(report))
    with StandIn(Server("good")) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}")
    assert code == 0, said
    assert sorted(one["task_instance_id"] for one in server.reports) == [2, 3, 7]
    assert kept(tmp_path) == []
    assert not (beside / "2.report").exists()


@pytest.mark.parametrize("run", [single, packed])
def test_a_report_that_can_neither_be_sent_nor_written_is_sent_until_it_is_recorded(tmp_path, run):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reports").write_text("in the way")
    with StandIn(Server(*[http(429)] * 4, "good")) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}", JOBMON_WORKER_REPORT_SECONDS="0.2")
    assert code == 0, said
    assert len(server.reports) == 5
    assert said.count("cannot be saved to disk yet") == 1


@pytest.mark.parametrize("run", [single, packed])
def test_a_report_for_which_there_is_neither_server_nor_disk_is_said_to_be_lost_in_the_end(tmp_path, run):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reports").write_text("in the way")
    bounds = {"JOBMON_WORKER_REPORT_SECONDS": "0.1", "JOBMON_WORKER_UNWRITTEN_SECONDS": "0.5"}
    with StandIn(Server(http(429))) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}", **bounds)
    assert code == 1
    assert "lost" in said


def test_a_pause_that_the_server_asks_for_is_kept(tmp_path):
    with StandIn(Server(http(429, retry_after=1), "good")) as server:
        code, _ = single(tmp_path, f"http://127.0.0.1:{server.port}", JOBMON_WORKER_REPORT_SECONDS="0.9")
    assert code == 0
    assert len(server.reports) == 1, "the time for reporting was over before the pause"
    assert kept(tmp_path) == ["7.report"]


@pytest.mark.parametrize(
    "answer", [http(401, b"<html>"), http(404, b"<html>"), http(200, b"<html>"), http(429), http(503)]
)
def test_a_worker_asks_again_when_its_start_was_not_answered_by_our_server(tmp_path, answer):
    first, server = iter([answer, answer]), Server("good")
    with StandIn(lambda route, m: next(first, None) or server(route, m)) as there:
        code, said = single(tmp_path, f"http://127.0.0.1:{there.port}")
    assert code == 0, said
    assert len(there.reports) == 1


@pytest.mark.parametrize("url", ["nowhere:8070", "http://h:port", "http://", "https://a<b", "http://::1:80"])
def test_an_address_that_cannot_be_used_is_said_at_once(tmp_path, url):
    code, said = single(tmp_path, url)
    assert code == 1
    assert f"The server address {url!r} cannot be used" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not has_openssl, reason="needs openssl for a certificate")
@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize("path", ["", "/jobmon", "/a/b/"])
def test_workers_speak_tls_below_a_path(tmp_path, run, path):
    trusted = certificate(tmp_path)
    there = StandIn(Server("good", commands=["head -c 9000 /dev/urandom"]))
    there.secure(tmp_path)
    with there as server:
        url = f"https://localhost:{server.port}{path}"
        code, said = run(tmp_path, url, SSL_CERT_FILE=str(trusted))
    assert (code, kept(tmp_path)) == (0, []), said
    assert len(server.reports) == 1
    assert {route.rpartition("/worker/")[0] for route, _ in server.told} == {path.rstrip("/") + "/api/v1"}


@pytest.mark.skipif(not has_openssl, reason="needs openssl for a certificate")
def test_a_certificate_that_is_not_trusted_is_no_server(tmp_path):
    certificate(tmp_path)
    there = StandIn(Server("good"))
    there.secure(tmp_path)
    with there as server:
        url = f"https://localhost:{server.port}"
        code, said = single(tmp_path, url, JOBMON_WORKER_START_SECONDS="0.5")
    assert code == 1
    assert "certificate" in said.lower()
    assert server.told == []


@pytest.mark.parametrize("run", [single, packed])
def test_a_name_with_several_addresses_is_tried_at_all_of_them(tmp_path, run):
    with StandIn(Server("good")) as server:
        code, said = run(tmp_path, f"http://localhost:{server.port}")
    assert code == 0, said
    assert len(server.reports) == 1
