"""Compare a run with the recording that it repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobmon.client.wfformat.graph import critical_path_seconds

if TYPE_CHECKING:
    from jobmon.client.wfformat.document import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Timing of a recording or a run. Work and critical path use recorded durations; None means unknown."""

    makespan_seconds: float | None
    critical_path_seconds: float
    work_seconds: float
    cores: int | None

    @property
    def critical_path_share(self) -> float | None:
        """The critical path as a share of the makespan: 1 means that no machine could have been faster."""
        return self.critical_path_seconds / self.makespan_seconds if self.makespan_seconds else None

    @property
    def parallel_efficiency(self) -> float | None:
        """The work as a share of what the cores could have done during the makespan."""
        if not self.makespan_seconds or not self.cores:
            return None
        return self.work_seconds / (self.makespan_seconds * self.cores)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values."""
        return {
            "makespan_seconds": self.makespan_seconds,
            "critical_path_seconds": self.critical_path_seconds,
            "critical_path_share": self.critical_path_share,
            "work_seconds": self.work_seconds,
            "cores": self.cores,
            "parallel_efficiency": self.parallel_efficiency,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The recording, the recording with scaled times, and the run."""

    scale: float
    task_count: int
    recorded: Timing
    scaled: Timing
    run: Timing

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values."""
        return {
            "scale": self.scale,
            "tasks": self.task_count,
            "recorded": self.recorded.as_dict(),
            "recorded_scaled": self.scaled.as_dict(),
            "run": self.run.as_dict(),
        }


def compare(recording: Recording, *, scale: float, makespan_seconds: float | None, cores: int | None) -> Comparison:
    """Compare a run with the recording. The makespan is in seconds; None means that makespan or cores are unknown."""

    def timing(factor: float, makespan: float | None, on_cores: int | None) -> Timing:
        return Timing(
            makespan_seconds=makespan,
            critical_path_seconds=path * factor,
            work_seconds=recording.work_seconds * factor,
            cores=on_cores,
        )

    path = critical_path_seconds(recording)
    recorded = recording.makespan_seconds
    return Comparison(
        scale=scale,
        task_count=len(recording.tasks),
        recorded=timing(1.0, recorded, recording.cores),
        scaled=timing(scale, None if recorded is None else recorded * scale, recording.cores),
        run=timing(scale, makespan_seconds, cores),
    )
