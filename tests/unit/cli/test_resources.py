"""Tables of used resources."""

from jobmon.cli.resources import _figures_row, _usage_rows
from jobmon.core.wire.monitoring import UsageResponse
from jobmon.core.wire.sizing import Figures

MIB = 1 / 1024


def test_memory_below_the_size_of_the_starting_program_is_an_upper_bound():
    used = UsageResponse(
        num_tasks=2,
        min_mem=11 * MIB,
        mean_mem=20 * MIB,
        percentiles_mem=[0.01, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0],
        max_mem=2.0,
        min_runtime=0.001,
        mean_runtime=1.0,
        max_runtime=2.0,
    )
    rows = _usage_rows(used)
    memory = ["at most 0.0107", "0.0195", "at most 0.01", "0.25", "0.5", "1", "2", "2", "2", "2"]
    assert [row[1] for row in rows] == memory
    assert [row[2] for row in rows] == ["0.001", "1", *["-"] * 7, "2"]


def test_requested_memory_is_no_bound():
    figures = Figures(count=3, minimum=MIB, mean=1.0, median=11 * MIB, p95=1.0, maximum=2.0)
    assert _figures_row("memory, GiB", figures, figures) == ("memory, GiB", "0.000977 to 2", "at most 0.0107", "1", "2")
    assert _figures_row("time, s", None, figures) == ("time, s", "-", "0.0107", "1", "2")
