"""`make audit`: check the dependencies pinned in `constraints.txt` for known vulnerabilities.

Skipped, with the reason, where pip-audit does not reach its data.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
AUDIT_SECONDS_MAX = 120


def main() -> int:
    """Audit; return 1 if there are vulnerabilities."""
    words = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "-f", "json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=AUDIT_SECONDS_MAX, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        sys.stdout.write(f"skipped: pip-audit got no answer within {AUDIT_SECONDS_MAX} s\n")
        return 0
    except ValueError:
        sys.stdout.write(f"skipped: pip-audit does not reach its data: {done.stderr.strip()[-300:]}\n")
        return 0
    unknown = [one["name"] for one in found if "skip_reason" in one]
    if len(unknown) == len(found):
        sys.stdout.write(f"skipped: pip-audit has no data about any of the {len(found)} dependencies here\n")
        return 0
    bad = {one["name"]: one["vulns"] for one in found if one.get("vulns")}
    for name, vulnerabilities in bad.items():
        sys.stdout.write(f"{name}: {', '.join(each['id'] for each in vulnerabilities)}\n")
    sys.stdout.write(
        f"{len(found) - len(unknown)} dependencies audited, {len(bad)} vulnerable, {len(unknown)} unknown\n"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
