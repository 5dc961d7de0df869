"""Check the distributor's invariants after each of these tests."""

from tests.distributor_states import states_are_valid

__all__ = ["states_are_valid"]
