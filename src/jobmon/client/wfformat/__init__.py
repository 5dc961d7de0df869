"""Recorded workflows (WfFormat 1.5): read one, build it as a workflow, run it, and compare the run with it.

Also writes a Jobmon workflow as a recording.

Start with `reader.read_recording`, then `builder.build_workflow`. `burner` is the program that each task runs: a
stand-alone script of the standard library. Uses only the public client classes.
"""

from jobmon.client.wfformat.builder import BuildOptions, build_workflow, cores_of, prepare_directory
from jobmon.client.wfformat.comparison import Comparison, compare
from jobmon.client.wfformat.document import RecordedMachine, RecordedTask, Recording, RecordingError
from jobmon.client.wfformat.graph import critical_path_seconds
from jobmon.client.wfformat.reader import parse_recording, read_recording
from jobmon.client.wfformat.writer import written_document

__all__ = [
    "BuildOptions",
    "Comparison",
    "RecordedMachine",
    "RecordedTask",
    "Recording",
    "RecordingError",
    "build_workflow",
    "compare",
    "cores_of",
    "critical_path_seconds",
    "parse_recording",
    "prepare_directory",
    "read_recording",
    "written_document",
]
