"""Logins in progress: what travels through the browser cannot be forged, reused for something else, or kept."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core.wire.login import Purpose
from jobmon.server import login
from jobmon.server.login import LoginRefused

KEY, NOW = b"k" * 32, 1_000.0
CHALLENGE = hashlib.sha256(b"secret").hexdigest()


def test_the_secrets_of_a_login_follow_from_its_state():
    state, pending = login.start(KEY, Purpose.PAGE, CHALLENGE, NOW)
    assert login.finish(KEY, Purpose.PAGE, state, "secret", NOW) == pending
    digest = hashlib.sha256(pending.verifier.encode()).digest()
    assert pending.challenge == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert 43 <= len(pending.verifier) <= 128, "the limits of RFC 7636"
    assert pending.nonce not in state
    assert pending.verifier not in state
    again, other = login.start(KEY, Purpose.PAGE, CHALLENGE, NOW)
    assert (again, other) != (state, pending), "each login has its own"


@given(st.text(max_size=300))
def test_nothing_but_an_issued_state_is_accepted(text):
    for refused in (text, f"page.9999999999.0.{CHALLENGE}.{text}"):
        with pytest.raises(LoginRefused):
            login.finish(KEY, Purpose.PAGE, refused, "secret", NOW)
        with pytest.raises(LoginRefused):
            login.device_code(KEY, refused, NOW)


@given(st.text(max_size=100), st.floats(0, 1e9))
def test_a_device_code_comes_back_until_it_expires(code, until):
    handle = login.device_handle(KEY, code, until)
    assert login.device_code(KEY, handle, int(until) - 0.5) == code
    with pytest.raises(LoginRefused, match="too long"):
        login.device_code(KEY, handle, until + 1)
    with pytest.raises(LoginRefused):
        login.device_code(b"x" * 32, handle, 0.0)
    with pytest.raises(LoginRefused):
        login.finish(KEY, Purpose.TOKEN, handle, "secret", 0.0)
