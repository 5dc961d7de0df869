"""The committed files of the page match a fresh build of its sources."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "src" / "jobmon" / "server" / "static"
#: Compressed, as it is sent.
BYTES_MAX = 80_000


def test_a_fresh_build_gives_the_committed_files(tmp_path):
    node = shutil.which("node")
    if node is None or not (ROOT / "ui" / "node_modules").is_dir():
        pytest.skip("the page cannot be built here: make ui")
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=ROOT / "ui", check=True, timeout=60)
    committed = {path.name: path.read_bytes() for path in STATIC.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == committed


def test_the_page_is_small():
    assert sum(len(gzip.compress(path.read_bytes(), 1)) for path in STATIC.iterdir()) < BYTES_MAX


def test_no_address_of_a_registry_is_recorded():
    locked = json.loads((ROOT / "ui" / "package-lock.json").read_text())
    assert [name for name, package in locked["packages"].items() if "resolved" in package] == []
