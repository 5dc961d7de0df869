"""The page on reliability names settings correctly."""

import os
import re
from pathlib import Path

from jobmon.core.configuration import JobmonConfig

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
ROW = re.compile(r"^\| .+ \| `(\w+)\.(\w+)` \| ([\d.]+) \|", re.MULTILINE)


def test_the_timers_have_the_defaults_of_the_settings(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("JOBMON__")]:
        monkeypatch.delenv(name)
    (tmp_path / "empty.yaml").touch()
    config = JobmonConfig(tmp_path / "empty.yaml")
    told = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(told) >= 9
    for section, key, default in told:
        assert float(default) == config.get_float(section, key), f"{section}.{key}"


def test_no_cell_is_empty():
    assert not re.search(r"\| *\|", PAGE.read_text(encoding="utf-8"))
