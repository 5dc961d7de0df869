"""Chaos on real processes: `make chaos ROUNDS=20`. Not collected by pytest; a lean part of it is in integration."""
