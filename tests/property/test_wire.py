"""Encode then decode is identity, and older and newer messages still decode (style.md 4.2, property 7)."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import types
import typing
from datetime import UTC, datetime
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobmon.core import wire
from jobmon.core.wire.fields import YEAR_MAX, YEAR_MIN

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
DATETIMES = st.datetimes(
    min_value=datetime(YEAR_MIN, 1, 1),  # noqa: DTZ001 - hypothesis adds the time zone
    max_value=datetime(YEAR_MAX, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def messages():
    """Every message class of every wire module."""
    found = []
    for module in pkgutil.iter_modules(wire.__path__):
        loaded = importlib.import_module(f"{wire.__name__}.{module.name}")
        found += [
            kind
            for kind in vars(loaded).values()
            if isinstance(kind, type) and issubclass(kind, wire.Message) and kind.__module__ == loaded.__name__
        ]
    return found


EVERY_MESSAGE = pytest.mark.parametrize("kind", messages(), ids=lambda kind: kind.__qualname__)


@cache  # to build the strategies of nested messages takes far longer than to draw from them
def instances(kind):
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: of_type(hint) for name, hint in hints.items()})


def of_type(hint):
    """Return a strategy for the annotation of a field."""
    if hint is typing.Any:
        return json_values
    if hint is datetime:
        return DATETIMES
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return limited(*arguments)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([of_type(argument) for argument in arguments])
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
    if origin is tuple:
        return st.tuples(*(of_type(argument) for argument in arguments if argument is not Ellipsis))
    if isinstance(hint, type) and issubclass(hint, wire.Message):
        return instances(hint)
    return st.none() if hint is type(None) else st.from_type(hint)


def limited(kind, meta):
    """Return a strategy for values within the limits of a field."""
    if kind is str:
        return st.text(max_size=20) | st.just("x" * (meta.max_length or 1_000))
    if kind is int:
        return st.integers(meta.ge, meta.le) | st.sampled_from([meta.ge, meta.le])
    if kind is datetime:
        return DATETIMES
    least = meta.ge if meta.gt is None else meta.gt
    return st.floats(least, meta.le, exclude_min=meta.gt is not None)


@EVERY_MESSAGE
@settings(max_examples=20)
@given(data=st.data())
def test_what_is_encoded_is_what_is_decoded(kind, data):
    message = data.draw(instances(kind))
    assert wire.decode(kind, wire.encode(message)) == message


@EVERY_MESSAGE
@settings(max_examples=5)
@given(data=st.data())
def test_a_newer_message_that_says_more_still_decodes(kind, data):
    message = data.draw(instances(kind))
    content = json.loads(wire.encode(message)) | {"said_by_a_newer_part": {"a": [1]}}
    assert wire.decode(kind, json.dumps(content).encode()) == message


@EVERY_MESSAGE
@settings(max_examples=5)
@given(data=st.data())
def test_an_older_message_that_says_less_still_decodes(kind, data):
    """Fields that came later have defaults; a message without them is the message with the defaults."""
    message = data.draw(instances(kind))
    later = {
        field.name: field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(kind)
        if not field.required
    }
    content = {name: value for name, value in json.loads(wire.encode(message)).items() if name not in later}
    assert wire.decode(kind, json.dumps(content).encode()) == wire.replace(message, **later)


@EVERY_MESSAGE
def test_what_is_no_such_message_is_refused(kind):
    with pytest.raises(ValueError):
        wire.decode(kind, b'"text"')


@EVERY_MESSAGE
@settings(max_examples=2)
@given(data=st.data())
def test_code_for_dataclasses_still_accepts_messages(kind, data):
    """Messages were dataclasses, which plug-ins and their tests may rely on."""
    message = data.draw(instances(kind))
    assert dataclasses.replace(message) == message
    assert [field.name for field in dataclasses.fields(message)] == list(kind.__struct_fields__)
