"""A census of Python's standard library, as a workflow of some 200 commands.

A separate command measures each module of the library's packages (size, functions, imports, complexity), one per
package sums up its modules, and a last one creates a report with a picture of all packages:

    measure (one per module)  ->  summarize (one per package)  ->  report

Run it with `python examples/stdlib_census.py`. It needs no setup: the server that records everything starts
automatically. The commands are in `stdlib_census_steps.py` in the same folder; the results go to `demo-output/`.
Names of packages as arguments restrict it to these packages: `python examples/stdlib_census.py json email`.
"""

import os
import shlex
import shutil
import sys
import sysconfig
import time
from pathlib import Path

from jobmon.client.api import Tool

STEPS = Path(__file__).resolve().with_name("stdlib_census_steps.py")
LIBRARY = Path(sysconfig.get_path("stdlib"))
OUTPUT = Path("demo-output").resolve()
COMMON = {"python": sys.executable, "steps": STEPS, "output": OUTPUT}
#: Excluded: tests, and packages that are tables, programs or copies rather than library code.
LEFT_OUT = {
    "__pycache__",
    "site-packages",
    "test",
    "tests",
    "encodings",
    "idlelib",
    "turtledemo",
    "distutils",
    "lib2to3",
    "pydoc_data",
}
#: The summary of this package fails at its first attempt to show a retry.
FLAKY = "json"


def modules_of_library(only=()):
    """Return a dict from package name to its source files, for all packages or only some."""
    packages = {}
    for init in sorted(LIBRARY.glob("*/__init__.py")):
        package = init.parent
        if package.name in only if only else package.name not in LEFT_OUT and not package.name.startswith("_"):
            sources = [
                path for path in sorted(package.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(LIBRARY).parts)
            ]
            packages[package.name] = sources
    return packages


def build(packages):
    """Define the workflow: three templates, a task for each module and package, and their dependencies."""
    tool = Tool(name="stdlib_census")
    # -I -S: these commands need only the standard library, so they start in a few milliseconds.
    measure = tool.get_task_template(
        template_name="measure",
        command_template="{python} -I -S {steps} measure {library} {module} {output}",
        node_args=["module"],
        op_args=["python", "steps", "library", "output"],
    )
    summarize = tool.get_task_template(
        template_name="summarize",
        command_template="{python} -I -S {steps} summarize {package} {output} {flaky}",
        node_args=["package"],
        op_args=["python", "steps", "output", "flaky"],
    )
    report = tool.get_task_template(
        template_name="report",
        command_template="{python} {steps} report {output}",
        op_args=["python", "steps", "output"],
    )
    common = {name: shlex.quote(str(path)) for name, path in COMMON.items()}

    # A new name for each run: with the same one, a second run would raise WorkflowAlreadyComplete.
    workflow = tool.create_workflow(
        name="stdlib_census", workflow_args=f"census {time.strftime('%Y-%m-%d %H:%M:%S')} {os.getpid()}"
    )
    summaries = []
    for package, sources in packages.items():
        measured = measure.create_tasks(
            module=[str(path.relative_to(LIBRARY)) for path in sources], library=shlex.quote(str(LIBRARY)), **common
        )
        flaky = "--fail-first-attempt" if package == FLAKY else ""
        summary = summarize.create_task(package=package, flaky=flaky, upstream_tasks=measured, **common)
        workflow.add_tasks([*measured, summary])
        summaries.append(summary)
    workflow.add_task(report.create_task(upstream_tasks=summaries, **common))
    return workflow


def main():
    """Run the census and print where its results are."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    packages = modules_of_library(sys.argv[1:])
    modules = sum(map(len, packages.values()))
    print(f"Census of {modules} modules in {len(packages)} packages of {LIBRARY}", flush=True)

    workflow = build(packages)
    status = workflow.run()

    result = workflow.last_result
    print(f"\n{result.done_count} of {result.total_tasks} tasks done in {result.elapsed_time:.1f} s.")
    errors = f"{os.path.relpath(Path(sys.executable).with_name('jobmon'))} workflow errors -w {workflow.workflow_id}"
    if status != "D":
        print(f"Something failed; see: {errors}")
        return 1
    print(f"\n{(OUTPUT / 'highlights.txt').read_text()}")
    print(f"The retry:   {errors}")
    print(f"The report:  {OUTPUT / 'report.md'}")
    print(f"Its picture: {OUTPUT / 'census.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
