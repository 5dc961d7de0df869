"""Chaos tests on real processes: `make chaos ROUNDS=20`. pytest only runs a small part, in the integration tests."""
