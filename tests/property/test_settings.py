"""Every setting accepts only values of its kind, wherever they come from, and says so in one sentence."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core.changes import CheckFiles, OnChange
from jobmon.core.configuration import SETTINGS, JobmonConfig, environment_variable
from jobmon.core.exceptions import ConfigError
from jobmon.core.setting_values import Flag, Number

ALL = [(section, key) for section, settings in SETTINGS.items() for key in settings]
NUMBERS = [name for name in ALL if isinstance(SETTINGS[name[0]][name[1]].values, Number)]

words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0$"), max_size=30)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.sampled_from(["-1", "nan", "1e999", "abc"])
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(words, scalars, max_size=2)


def setting_of(name):
    return SETTINGS[name[0]][name[1]]


def read(name, value):
    """Set a setting in code and read it; return its value, or None and the error."""
    config = JobmonConfig(dict_config={})
    try:
        config.set(*name, value)
        return config.parsed(*name), ""
    except ConfigError as error:
        return None, str(error)


@pytest.mark.parametrize("name", ALL, ids=".".join)
@given(value=values)
def test_a_value_is_of_its_kind_or_named_with_the_remedy(name, value):
    found, error = read(name, value)
    setting = setting_of(name)
    if error:
        shown = "this value" if setting.is_secret else repr(value)[:20]
        assert error.startswith(f"Setting {'.'.join(name)} must be {setting.values.wanted}, not {shown}")
        assert error.endswith(f" (set in code). Correct it there; the default is {setting.default!r}.")
    elif isinstance(setting.values, Number):
        assert math.isfinite(found)
        assert setting.values.low <= found <= setting.values.high
        assert isinstance(found, int) or not setting.values.is_whole
    elif isinstance(setting.values, Flag):
        assert isinstance(found, bool)


@pytest.mark.parametrize("name", ALL, ids=".".join)
def test_the_default_is_valid_as_a_value_and_as_text(name):
    default = setting_of(name).default
    assert read(name, default) == read(name, str(default)) == (setting_of(name).values.parse(default), "")


@pytest.mark.parametrize(
    "value", [-2, "-2", "nan", math.nan, math.inf, "inf", 10**400, 1e30, "abc", "", None, True, [1]]
)
@pytest.mark.parametrize("name", NUMBERS, ids=".".join)
def test_no_number_is_negative_infinite_huge_or_no_number(name, value):
    assert read(name, value)[1]


@pytest.mark.parametrize("name", ALL, ids=".".join)
def test_the_error_names_the_source_of_the_value(name, tmp_path, monkeypatch):
    value = {"a": {"b": 1}} if name != ("run", "on_change") else {"a": "b"}
    monkeypatch.chdir(tmp_path)
    for variable in ("JOBMON_CONFIG_FILE", "JOBMON__CONFIG_FILE", environment_variable(*name)):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({name[0]: {name[1]: [value]}}))
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        JobmonConfig(path).parsed(*name)
    assert f"({path}). To set the default: jobmon config set {'.'.join(name)} " in str(caught.value)
    with pytest.raises(ConfigError):
        JobmonConfig(path).check()
    if read(name, "\a")[1]:  # some accept any text of one line, others less
        monkeypatch.setenv(environment_variable(*name), "\a")
        with pytest.raises(ConfigError) as caught:
            JobmonConfig(path).parsed(*name)
        variable = environment_variable(*name)
        assert f"(environment variable {variable}). Correct it, or: unset {variable}" in str(caught.value)


def test_words_are_those_of_the_code():
    for modes, name in ((OnChange, ("run", "on_change")), (CheckFiles, ("run", "check_files"))):
        assert all(mode.value in setting_of(name).values.wanted for mode in modes)
        assert all(read(name, mode.value) == (mode.value, "") for mode in modes)
    assert read(("run", "on_change"), '{"sum": "keep", "*": "rerun"}') == ({"sum": "keep", "*": "rerun"}, "")
    assert read(("run", "on_change"), '{"sum": "no"}')[1]
