"""Lists: limits, streamed JSON, CSV, and the pager."""

from __future__ import annotations

import io
import json
import sys

import pytest

from jobmon.cli import output


def test_a_table_has_a_limit_and_json_has_none():
    assert (output.rows_max(None, "table"), output.rows_max(None, "json"), output.rows_max(None, "csv")) == (
        25,
        None,
        None,
    )
    assert (output.rows_max(3, "json"), output.rows_max(0, "table")) == (3, None)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_array(count, capsys):
    rows = [{"n": number, "in": {"a": [1, 2]}} for number in range(count)]
    assert output.show_rows(iter(rows), "json") == count
    assert json.loads(capsys.readouterr().out) == rows


def test_json_is_written_while_rows_come(capsys):
    seen = []

    def rows():
        for number in range(3):
            seen.append(capsys.readouterr().out)
            yield {"n": number}

    output.show_rows(rows(), "json")
    assert ['"n": 0' in text for text in seen] == [False, True, False]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_text_in_csv_is_a_formula(capsys, text):
    output.show_rows([{"a": text, "b": "x=1", "c": -1}], "csv")
    assert capsys.readouterr().out == f"a,b,c\n'{text},x=1,-1\n"


def test_no_name_is_a_formula_or_steers_a_terminal():
    assert [output.csv_cell(value) for value in ("=1+1", "@x", "-5", "a\x1b[31m\u202e", "a=b", -5, None, True)] == [
        *("'=1+1", "'@x", "'-5", "a␛[31m\ufffd", "a=b", -5, None, "true")
    ]


def test_csv_quotes_what_needs_it(capsys):
    output.show_rows([{"a": 'x,"y"', "b": {"c": 1}, "d": None}], "csv")
    assert capsys.readouterr().out == 'a,b,d\n"x,""y""","{""c"": 1}",\n'


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("lines", "is_paged"), [(3, False), (200, True)])
def test_only_what_is_longer_than_the_terminal_goes_to_the_pager(lines, is_paged, monkeypatch):
    paged, terminal = [], Terminal()
    monkeypatch.setattr(output.click, "echo_via_pager", paged.append)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "24")
    with output.paged():
        print("x\n" * lines, end="")
    assert paged == (["x\n" * lines] if is_paged else [])
    assert terminal.getvalue() == ("" if is_paged else "x\n" * lines)


def test_without_a_terminal_there_is_no_pager(monkeypatch, capsys):
    with output.paged():
        print("x\n" * 200, end="")
    assert capsys.readouterr().out == "x\n" * 200
