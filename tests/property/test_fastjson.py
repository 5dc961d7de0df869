"""The worker's JSON, built from the C parts of `json`, equals that of `json`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent import fastjson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES)
def test_what_is_written_is_what_json_writes_and_comes_back(value):
    text = fastjson.dumps(value)
    assert text == json.dumps(value)
    assert fastjson.loads(text) == value
    assert fastjson.loads(f" {text}\n") == value


@given(text=st.text() | st.sampled_from(["{", "[1,", '{"a" 1}', "1 2", "", " ", "nul", "[1]]", '"\n"']))
def test_what_json_refuses_is_a_value_error(text):
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            fastjson.loads(text)
    else:
        found = fastjson.loads(text)
        assert found == wanted or (found != found and wanted != wanted)


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError):
        fastjson.dumps({"a": object()})
