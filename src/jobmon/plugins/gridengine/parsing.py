"""Parse the output of Grid Engine's tools. Pure: any text results in values or `ClusterUnavailable`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from jobmon.plugins.batch.answers import garbage, printed_id
from jobmon.plugins.batch.endings import Ending
from jobmon.plugins.batch.submission import mark_of
from jobmon.plugins.batch.view import ListedJob
from jobmon.plugins.gridengine.commands import FORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobmon.plugins.batch.ids import JobIds

KIB: Final = 1024
RUNNING: Final = "r"
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: An exit status above this stands for a signal if `failed` indicates a problem.
SIGNAL_BASE: Final = 128
_SUBMITTED: Final = re.compile(r"^(\d{1,18})(?:\.\d+-\d+:\d+)?$", re.ASCII)
_MOMENT: Final = re.compile(r"^\w{3} (\w{3}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})$", re.ASCII)
_AMOUNT: Final = re.compile(r"^(\d{1,18}(?:\.\d{1,9})?)([KMGTP]?)(?:B|s)?$", re.ASCII | re.IGNORECASE)
_CODE: Final = re.compile(r"^(\d{1,6})\b", re.ASCII)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_REQUESTED: Final = re.compile(r"\b([A-Za-z_]\w*)=([^,\s]+)", re.ASCII)
_REASON: Final = re.compile(r"^error reason +\d+: +(?:[\d/]+ [\d:]+ \[\d+:\d+\]: )?(.*)$")


def submitted_id(output: str) -> str:
    """Parse the output of `qsub -terse`, "12" or "12.1-10:1"; a site's own text may precede it.

    Raises:
        ClusterUnavailable: the output has another form.
    """
    return printed_id("qsub", output, _SUBMITTED)


def listed(output: str) -> list[ListedJob]:
    """Parse the output of `qstat -xml`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    try:
        root = ElementTree.fromstring(output)
    except (ElementTree.ParseError, ValueError):
        raise garbage("qstat", output) from None
    if root.tag != "job_info":
        raise garbage("qstat", output)
    return [_listed(row) for row in root.iter("job_list") if mark_of(row.findtext("JB_name", ""))]


def _listed(row: ElementTree.Element) -> ListedJob:
    number, state = row.findtext("JB_job_number", ""), row.findtext("state", "")
    ids = _ids(number, row.findtext("tasks"))
    if ids is None or not state:
        raise garbage("qstat", ElementTree.tostring(row, encoding="unicode"))
    return ListedJob(
        ids=ids,
        name=row.findtext("JB_name", ""),
        state=state,
        is_pending="w" in state,
        reason=_reason(state),
        host=row.findtext("queue_name", "").partition("@")[2] or None if state == RUNNING else None,
    )


def _ids(number: str, tasks: str | None) -> JobIds | None:
    """Parse the number of a job and, for an array, its tasks: "3", "1,2" or "3-9:1"."""
    return FORM.parse(FORM.join(number, f"[{tasks.replace(' ', '')}]") if tasks else number)


def _reason(state: str) -> str:
    if "E" in state:
        return "in error state"
    return "held: 'qrls' releases it" if "h" in state else ""


def accounted(output: str) -> list[ListedJob]:
    """Parse the output of `qacct -j`.

    Raises:
        ClusterUnavailable: the output cannot be parsed.
    """
    if output.startswith("OWNER") or not output.strip():
        return []  # a table of sums: nothing matched
    if not output.startswith("====="):
        raise garbage("qacct", output)
    found = []
    for fields in _records(output):
        if mark_of(fields.get("jobname", "")) is None:
            continue
        task = fields.get("taskid", "")
        ids = _ids(fields.get("jobnumber", ""), task if task.isdecimal() else None)
        if ids is None:
            raise garbage("qacct", str(fields))
        ending = _ending(fields)
        found.append(ListedJob(ids=ids, name=fields.get("jobname", ""), state=ending.state, ending=ending))
    return found


def _records(output: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in (*output.splitlines(), "====="):
        if not line.startswith("====="):
            key, _, value = line.partition(" ")
            fields[key] = value.strip()
        elif fields:
            yield fields
            fields = {}


def _ending(fields: dict[str, str]) -> Ending:
    code, _, words = fields.get("failed", "").partition(":")
    status = _CODE.match(fields.get("exit_status", ""))
    exit_status = int(status[1]) if status else None
    is_signal = exit_status is not None and exit_status > SIGNAL_BASE and code.strip() != "0"
    asked = dict(_REQUESTED.findall(fields.get("category", "")))
    began = _seconds(fields.get("start_time", ""))
    return Ending(
        state=code.strip(),
        exit_code=None if is_signal else exit_status,
        signal=exit_status - SIGNAL_BASE if is_signal and exit_status is not None else None,
        host=fields.get("hostname") or None,
        started_at=began,
        ended_at=_seconds(fields.get("end_time", "")),
        elapsed_seconds=_amount(fields.get("ru_wallclock", "")),
        cpu_seconds=_amount(fields.get("cpu", "")),
        max_rss_bytes=int(_amount(fields.get("maxvmem", "")) or 0) or None,
        requested_bytes=_bytes_of_job(asked, fields.get("slots", "")),
        requested_seconds=_amount(asked.get("h_rt", "")),
        detail=words.strip(),
    )


def _bytes_of_job(asked: dict[str, str], slots: str) -> int | None:
    per_slot = _amount(asked.get("h_vmem", ""))
    return None if per_slot is None else int(per_slot * max(1, int(slots[:9]) if slots.isdecimal() else 1))


def _amount(text: str) -> float | None:
    """Parse "4s", "0.010s", "268.242MB" or "200M"; return None for other texts."""
    found = _AMOUNT.match(text.strip())
    return None if found is None else float(found[1]) * KIB ** _POWERS[found[2].upper()]


def _seconds(text: str) -> float | None:
    """Parse "Mon Nov 30 18:33:55 2026", in UTC due to `tool_environment`; return None for "-/-" and the like."""
    found = _MOMENT.match(text)
    if found is None or found[1] not in MONTHS:
        return None
    month, day, hour, minute, second, year = found.groups()
    try:
        moment = datetime(int(year), MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp() or None


def error_reasons(output: str) -> dict[str, str]:
    """Parse why jobs are in error state from `qstat -j`: number of the job -> Grid Engine's reason."""
    found: dict[str, str] = {}
    number = ""
    for line in output.splitlines():
        if line.startswith("job_number:"):
            number = line.partition(":")[2].strip()
        elif number and (matched := _REASON.match(line)):
            found.setdefault(number, matched[1].strip())
    return found


def settings(output: str) -> dict[str, str]:
    """Parse the output of `qconf -s...`: a name and a value per line; a backslash continues a line."""
    lines = output.replace("\\\n", " ").splitlines()
    pairs = (line.partition(" ") for line in lines if line and not line.startswith(("#", " ")))
    return {name: " ".join(value.split()) for name, _, value in pairs}


def limit_seconds(text: str) -> float | None:
    """Parse a time limit of a queue, "300" or "1:00:00"; return None if there is none."""
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        return None
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return float(seconds) or None


def memory_gib(text: str) -> float | None:
    """Parse a memory limit, "8G"; return None if there is none."""
    amount = _amount(text)
    return amount / KIB**3 if amount else None
