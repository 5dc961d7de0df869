"""How deep hypothesis looks: deeper in CI, and never with a deadline, because machines are shared."""

import os

from hypothesis import settings

settings.register_profile("local", max_examples=100, deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("deep" if os.environ.get("CI") else "local")
