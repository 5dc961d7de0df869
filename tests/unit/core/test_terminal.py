"""No control character reaches a terminal."""

from __future__ import annotations

import io
import sys

import click
import pytest
from click.testing import CliRunner

from jobmon.cli.main import main
from jobmon.core import terminal
from jobmon.core.exceptions import ConfigError

#: Clipboard, title, screen, colour, C1, bidi, separators.
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b]0;TITLE\x1b\\\x1b[2J\x1b[31m\x9b2J\x85\x7f\r\b\0\u202e\u2066\u200f\u061c\u2028"
CONTROLS = set(map(chr, (*range(9), *range(11, 32), *range(127, 160), *terminal.DIRECTIONS)))


def test_controls_become_visible_and_everything_else_stays():
    shown = terminal.plain(f"é {HOSTILE} 漢\tx\n")
    assert not CONTROLS & set(shown)
    assert shown.startswith("é ␛]52;c;ZXZpbA==␇")
    assert shown.endswith(" 漢\tx\n")
    assert terminal.plain("plain") == "plain"
    assert len(shown) == len(HOSTILE) + len("é ") + len(" 漢\tx\n")


def test_errors_are_plain():
    assert not CONTROLS & set(str(ConfigError(f"a {HOSTILE}")))


def test_a_guarded_stream_lets_only_plain_text_through(monkeypatch):
    streams = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with terminal.guarded():
        click.echo(HOSTILE)
        click.echo(HOSTILE.encode(), err=True)
        sys.stdout.writelines([HOSTILE])
        assert not hasattr(sys.stdout, "buffer")
        assert terminal.unguarded(sys.stdout) is streams[0]
    assert (sys.stdout, sys.stderr) == streams
    assert streams[0].getvalue()
    assert streams[1].getvalue()
    assert not CONTROLS & set(streams[0].getvalue() + streams[1].getvalue())


@pytest.mark.parametrize("words", [("config", "set", "http.request_timeout", HOSTILE), (HOSTILE,), ("task", HOSTILE)])
def test_no_command_repeats_controls(words):
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 2
    assert not CONTROLS & set(result.output)
