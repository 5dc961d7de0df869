"""Targets of fuzzing: a function of bytes, the exceptions it may raise, and seeds."""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from jobmon.agent import addresses, fastjson, journal, outputs
from jobmon.agent.http import Reader
from jobmon.agent.recovery import read_journal
from jobmon.agent.undelivered import reports_in
from jobmon.client.wfformat import RecordingError, parse_recording
from jobmon.core import configuration, http, terminal, wire
from jobmon.core.exceptions import ClusterUnavailable, ConfigError
from jobmon.plugins.slurm import parsing

RECORDED = Path(__file__).parents[1] / "unit" / "plugins" / "slurm" / "recorded"
_FOLDER = Path(tempfile.gettempdir())

_ANSWERS = (
    b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"kill":[]}',
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 503 X\r\nretry-after: 5\r\nconnection: close\r\n\r\n<html>",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 No\r\n\r\n",
)
_REPORT = b'{"reports":[{"task_instance_id":7,"status":"D","exit_code":0,"log_tail":"x"}],"alive":[]}'


@dataclass(frozen=True)
class Target:
    """One decoder. `expected`: exceptions it may raise. `seeds`: inputs from which others are derived."""

    name: str
    run: Callable[[bytes], Any]
    expected: tuple[type[BaseException], ...] = ()
    seeds: tuple[bytes, ...] = ()


def _worker_answer(content: bytes) -> None:
    """The same in one piece, and byte by byte; what is left when the connection ends."""
    for pieces in ((content,), [content[place : place + 1] for place in range(min(len(content), 300))]):
        reader = Reader()
        for piece in (*pieces, b""):
            if piece and reader.feed(piece) is not None:
                break


def _client_answer(content: bytes) -> None:
    async def exchange() -> None:
        stream = asyncio.StreamReader(limit=http.RECEIVE_BYTES)
        stream.feed_data(content)
        stream.feed_eof()
        await http._Connection(stream, _Nowhere()).exchange(b"")

    asyncio.run(exchange())


class _Nowhere:
    def write(self, _: bytes) -> None:
        """Nothing is written."""


def _server_head(content: bytes) -> None:
    """The front of the server: answers 400 and closes, or hands the request on; raises nothing."""
    import uvicorn

    from jobmon.server.connections import Connections
    from jobmon.server.gathering import BoundedProtocol

    async def feed() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", access_log=False)
        config.load()
        protocol = BoundedProtocol(
            Connections(64), config=config, server_state=uvicorn.server.ServerState(), app_state={}
        )
        protocol.connection_made(_Transport())
        protocol.data_received(content)
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        assert not problems, problems

    asyncio.run(feed())


class _Transport(asyncio.Transport):
    def write(self, data: bytes) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """There is nothing to close."""

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


def _in_file(read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    def run(content: bytes) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_bytes(content)
            return read(path)

    return run


def _kept_report(path: Path) -> None:
    content = journal.read(str(path))
    reports_in(content)
    wire.decode(wire_message("launching", "WorkerReportRequest"), content)


def _log_tail(content: bytes) -> None:
    text = outputs.tail_text(content)
    outputs.last_line(text)
    assert "\0" not in text
    assert not any(one in terminal.plain(text) for one in "\x1b\x07\x9b\u202e\r")


def _settings(content: bytes) -> None:
    configuration._flattened(configuration._parsed(content, Path("file")), "file")


def _text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda content: read(content.decode(errors="replace"))


def wire_message(module: str, name: str) -> Any:
    """Return a class of messages."""
    return getattr(import_module(f"jobmon.core.wire.{module}"), name)


def _messages() -> list[Any]:
    found = []
    for module in pkgutil.iter_modules(wire.__path__, "jobmon.core.wire."):
        for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(kind, wire.Message) and kind.__module__ == module.name:
                found.append(kind)
    return found


def _every_message(content: bytes) -> None:
    for kind in _messages():
        try:
            wire.decode(kind, content)
        except ValueError:
            continue


def _recorded(name: str) -> tuple[bytes, ...]:
    return ((RECORDED / f"{name}.txt").read_bytes(),)


TARGETS = (
    Target(
        "messages", _every_message, (), (_REPORT, b'{"name":"t"}', b'{"tasks":[[1,2]],"now":"2026-01-01T00:00:00Z"}')
    ),
    Target("answers to a worker", _worker_answer, (ValueError, ConnectionError), _ANSWERS),
    Target(
        "answers to a client",
        _client_answer,
        (ValueError, ConnectionError, EOFError, asyncio.LimitOverrunError),
        _ANSWERS,
    ),
    Target(
        "requests to the server",
        _server_head,
        (),
        (b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\n\r\n", b"POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"),
    ),
    Target("a worker's JSON", _text(fastjson.loads), (ValueError, RecursionError), (_REPORT, b'[1e9,"\\u00e9",null]')),
    Target(
        "addresses of servers",
        _text(addresses.parse),
        (addresses.InvalidAddress,),
        (b"https://user@host:80/path?x#y", b"http://[fe80::1%eth0]:1"),
    ),
    Target("kept reports", _in_file(_kept_report), (ValueError,), (_REPORT,)),
    Target("names of kept reports", _text(journal.entry_of), (), (b"7-cafe.report.unknown-1", b"8.report")),
    Target(
        "journals of agents",
        _in_file(read_journal),
        (),
        (b'["b",1,"boot"]\n["s",7,42,0,1.5]\n["e",7,0,0]\n{}\n', b'["g","/sys"]\n[]\n["s"]'),
    ),
    Target("the end of logs", _log_tail, (), (b"line\nerr\x1b[2J\x9b", b"\xff\xfe\0" * 9)),
    Target(
        "settings", _settings, (ConfigError,), (b"http:\n  request_timeout: 3\n", b"db: {pool: {size: 1}}", b"&a [*a]")
    ),
    Target(
        "access files",
        lambda content: wire.decode(wire_message("server", "AccessFile"), content),
        (ValueError,),
        (b'{"host":"h","pid":1,"pid_start_time":1.0,"boot_id":"b","socket":"","address":"","token":""}',),
    ),
    Target(
        "recorded workflows", parse_recording, (RecordingError,), (b'{"name":"w","schemaVersion":"1.5","workflow":{}}',)
    ),
    Target("squeue", _text(parsing.queue_rows), (ClusterUnavailable,), _recorded("squeue")),
    Target("sacct", _text(parsing.accounting_rows), (ClusterUnavailable,), _recorded("sacct")),
    Target("partitions of Slurm", _text(parsing.partitions), (ClusterUnavailable,), _recorded("partitions")),
    Target("configuration of Slurm", _text(parsing.configuration), (ClusterUnavailable,), _recorded("config")),
    Target("nodes of Slurm", _text(parsing.node_kinds), (ClusterUnavailable,), _recorded("sinfo")),
    Target(
        "answers of sbatch",
        _text(parsing.submitted_id),
        (ClusterUnavailable,),
        (b"123;cluster\n", b"Submitted batch job 5"),
    ),
)
