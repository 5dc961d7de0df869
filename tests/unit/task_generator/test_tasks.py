"""Tasks of functions: commands, identity, names, lists of values, and rejected calls."""

from __future__ import annotations

import datetime as dt
import enum
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobmon.core.task_generator import TaskGenerator, task_generator
from jobmon.core.task_generator.words import ARGUMENT_BYTES_MAX, named_texts, unquoted


class Sex(enum.Enum):
    FEMALE = 1
    MALE = 2


@dataclass(frozen=True)
class Model:
    name: str
    knots: tuple[int, ...] = ()


RECEIVED: list[Any] = []


@task_generator(tool_name="t", naming_args=["year", "sex"], max_attempts=5, default_compute_resources={"cores": 2})
def fit(year: int, sex: Sex = Sex.FEMALE, model: Model | None = None, weights: float = 1.0) -> None:
    """Fit a model."""
    RECEIVED.append((year, sex, model, weights))


@task_generator(tool_name="t")
def gather(years: list[int], grid: list[list[int]] = [], when: dt.date = dt.date(2020, 1, 31)) -> None:  # noqa: B006
    """Take lists."""


@task_generator(tool_name="t", name_func=lambda prefix, args: f"{prefix}.{args['path'].stem}")
def read(path: Path, text: str = "") -> None:
    """Read a file."""


@task_generator()
def nothing() -> None:
    """Take nothing."""
    RECEIVED.append("called")


def hidden(x: int) -> None:
    """A plain function whose generator has another name."""


other_name = task_generator()(hidden)


def test_the_command_of_a_task():
    task = fit.create_task(year=2020, model=Model("a b", (1,)))
    assert task.command == (
        f"{sys.executable} -P -m jobmon.core.task_generator --module {__name__} --func fit"
        f" --path {Path(__file__).parents[__name__.count('.')]}"
        " --args year=2020 sex=FEMALE model=%7B%22name%22:%22a%20b%22,%22knots%22:%5B1%5D%7D weights=1.0"
    )


def test_recorded_arguments_are_readable():
    task = fit.create_task(year=2020, sex=Sex.MALE, model=Model("a {b}"))
    assert task.node_args == {
        "year": "2020",
        "sex": "MALE",
        "model": '{"name":"a {b}","knots":[]}',
        "weights": "1.0",
    }
    assert gather.create_task(years=[1]).node_args == {"years": "[1]", "grid": "[]", "when": "2020-01-31"}
    assert read.create_task(path=Path("/a b"), text='"', name="r").node_args == {"path": "/a b", "text": '"'}


def test_options_reach_template_and_task():
    upstream = fit.create_task(year=1)
    task = fit.create_task(year=2, upstream_tasks=[upstream], compute_resources={"cores": 3}, task_attributes=["a"])
    assert (upstream.max_attempts, upstream.compute_resources["cores"]) == (5, 2)
    assert (task.compute_resources["cores"], task.upstream_tasks) == (3, {upstream})
    assert fit.task_template.template_name == "fit"
    assert (fit.tool.name, nothing.tool.name) == ("t", __name__)


def test_names_of_tasks():
    assert fit.create_task(year=2020, sex=Sex.MALE).name == "fit:year=2020:sex=MALE"
    assert fit.create_task(year=2020, name="own").name == "own"
    assert read.create_task(path=Path("/data/in.csv")).name == "read.in"
    assert gather.create_task(years=[1]).name == "gather:years=[1]:grid=[]:when=2020-01-31"
    with pytest.raises(ValueError, match=r"must not contain ' '"):
        read.create_task(path=Path("/data/in put.csv"))


def test_defaults_count_for_identity_and_the_folder_does_not():
    explicit = fit.create_task(year=1, sex=Sex.FEMALE, model=None, weights=1.0)
    assert fit.create_task(year=1).task_digest == explicit.task_digest
    assert fit.task_template.active_task_template_version.op_args == {"jobmon_python", "jobmon_place"}


def version_of(source: str) -> bytes:
    names: dict[str, Any] = {"__name__": __name__}
    exec(source, names)
    name = source.partition("def ")[2].partition("(")[0]
    return TaskGenerator(names[name], tool_name="t").task_template.active_task_template_version.digest


def test_the_version_is_one_of_name_and_parameters_not_of_the_body():
    first = version_of("def f(x: int): return 1")
    assert version_of("def f(x: int = 5): return 2") == first
    assert version_of("def g(x: int): return 1") != first
    assert version_of("def f(y: int): return 1") != first
    assert version_of("def f(x: int, y: int): return 1") != first


# --- several values ---------------------------------------------------------------------------------------------------


def values_of(tasks, *names):
    return [tuple(task.node_args[name] for name in names) for task in tasks]


def test_a_list_for_a_parameter_that_is_no_list_is_a_set_of_values():
    tasks = fit.create_tasks(year=range(2020, 2022), sex=list(Sex), max_concurrently_running=3)
    assert values_of(tasks, "year", "sex") == [
        ("2020", "FEMALE"),
        ("2020", "MALE"),
        ("2021", "FEMALE"),
        ("2021", "MALE"),
    ]
    assert tasks[0].name == "fit:year=2020:sex=FEMALE"
    assert fit.task_template.max_concurrently_running == 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2], ["[1,2]"]),
        ([[1, 2], [3]], ["[1,2]", "[3]"]),
        ([], ["[]"]),
        ([[]], ["[]"]),
        (([n] for n in range(2)), ["[0]", "[1]"]),
    ],
)
def test_a_list_that_fits_a_parameter_is_one_value(given, expected):
    assert [value for (value,) in values_of(gather.create_tasks(years=given), "years")] == expected


def test_a_list_of_lists_for_a_list_of_lists_is_one_value():
    assert len(gather.create_tasks(years=[1], grid=[[1], [2]])) == 1
    assert len(gather.create_tasks(years=[1], grid=[[[1]], [[2]]])) == 2


def test_no_values_make_no_tasks():
    assert fit.create_tasks(year=[]) == []


def test_tasks_are_found_again_by_their_arguments():
    workflow = fit.tool.create_workflow()
    workflow.add_tasks(fit.create_tasks(year=[1, 2], model=[None, Model("m")]))
    (task,) = fit.get_tasks_by_node_args(workflow, year=1, model=Model("m"))
    assert task.node_args["year"] == "1"
    assert len(fit.get_tasks_by_node_args(workflow, year=[1, 2])) == 4
    with pytest.raises(ValueError, match=r"no parameter 'yeer'; did you mean 'year'"):
        fit.get_tasks_by_node_args(workflow, yeer=1)


class Scalar:
    """Like a number of NumPy: no int, but one inside."""

    ndim = 0

    def item(self) -> int:
        return 7


def test_scalars_of_numpy_are_numbers():
    assert values_of(fit.create_tasks(year=[Scalar()], weights=Scalar()), "year", "weights") == [("7", "7.0")]


# --- what is refused --------------------------------------------------------------------------------------------------

DEEP: list[Any] = []
DEEP.append(DEEP)


@pytest.mark.parametrize(
    ("generator", "arguments", "expected"),
    [
        (fit, {}, "'year' missing"),
        (fit, {"year": 1, "yaer": 2}, "'yaer' unknown"),
        (fit, {"year": "2020"}, "Parameter 'year' of 'fit' cannot be '2020': '2020' is of type str, not int."),
        (fit, {"year": True}, "True is of type bool, not int"),
        (fit, {"year": 1.0}, "1.0 is of type float, not int"),
        (fit, {"year": None}, "None is of type NoneType, not int"),
        (fit, {"year": [1]}, "[1] is of type list, not int"),
        (fit, {"year": 1, "sex": "MALE"}, "'MALE' is of type str, not Sex"),
        (fit, {"year": 1, "weights": 2**53 + 1}, "is an int that has no exact float value"),
        (fit, {"year": 1, "weights": 10**400}, "is an int that has no exact float value"),
        (fit, {"year": 1, "model": Model(5)}, "Parameter 'model' of 'fit' cannot be Model(name=5, knots=()): "),
        (fit, {"year": 1, "model": "m"}, "'m' is of type str, not Model | None"),
        (gather, {"years": [1, "x"]}, "Parameter 'years' of 'gather' cannot be [1, 'x']: 'x' is of type str"),
        (gather, {"years": (1,)}, "(1,) is of type tuple, not list[int]"),
        (gather, {"years": [1], "grid": DEEP}, "Parameter 'grid' of 'gather' cannot be"),
        (gather, {"years": [1], "when": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "is of type datetime, not date"),
        (read, {"path": "a"}, "'a' is of type str, not Path"),
        (
            read,
            {"path": Path("a"), "text": "a\0b"},
            "Parameter 'text' of 'read' cannot be 'a\\x00b': it contains a NUL",
        ),
        (read, {"path": Path("a"), "text": "\udc80"}, "it is not valid Unicode"),
        (
            read,
            {"path": Path("a"), "text": "é" * 30_000},
            "takes 180000 bytes of the command line, and the system allows",
        ),
    ],
)
def test_a_wrong_argument(generator, arguments, expected):
    with pytest.raises(ValueError) as caught:
        generator.create_task(**arguments)
    assert expected in str(caught.value)


def test_serializers_that_fail():
    names: dict[str, Any] = {"__name__": __name__}
    exec("def f(x: complex): pass", names)
    unable = TaskGenerator(names["f"], {complex: (lambda value: {}["key"], complex)})
    with pytest.raises(ValueError, match=r"Parameter 'x' of 'f' cannot be 1j: KeyError: 'key'"):
        unable.create_task(x=1j)
    wrong = TaskGenerator(names["f"], {complex: (lambda value: value, complex)})
    with pytest.raises(ValueError, match=r"the serializer of complex returned 1j, which is not a string"):
        wrong.create_task(x=1j)


def test_long_arguments_that_fit_one_by_one_and_not_together():
    text = "x" * (ARGUMENT_BYTES_MAX - 1000)
    assert read.create_task(path=Path("a"), text=text)
    with pytest.raises(ValueError, match=rf"longer than the {ARGUMENT_BYTES_MAX} bytes"):
        read.create_task(path=Path("a" * 1000), text=text, name="r")


def test_a_wrong_item_among_values():
    with pytest.raises(ValueError, match=r"Parameter 'year' of 'fit' cannot be 'x': .* of type str, not int"):
        fit.create_tasks(year=[1, "x"])


def test_a_generator_under_another_name_cannot_be_found():
    with pytest.raises(ValueError, match=r"would not find the task generator of 'hidden'"):
        other_name.create_task(x=1)


def test_wrong_options_are_said_when_the_first_task_is_made():
    function = make_function()
    with pytest.raises(ValueError, match="max_attempts"):
        TaskGenerator(function, max_attempts=0).create_task(x=1)
    with pytest.raises(ValueError, match="Memory '8GG'"):
        TaskGenerator(function, default_compute_resources={"memory": "8GG"}).create_task(x=1)


def test_resources_from_a_file(tmp_path):
    file = tmp_path / "resources.yaml"
    file.write_text("task_template_resources: {f: {multiprocess: {cores: 4}}}")
    generator = TaskGenerator(make_function(), yaml_file=file, default_cluster_name="multiprocess")
    assert generator.create_task(x=1).compute_resources["cores"] == 4


def make_function():
    names: dict[str, Any] = {"__name__": __name__}
    exec("def f(x: int): pass", names)
    return names["f"]


# --- on the worker ----------------------------------------------------------------------------------------------------


def test_run_calls_the_function():
    RECEIVED.clear()
    fit.run(["year=-5", "model=%7B%22name%22:%22a%22,%22knots%22:%5B%5D%7D"])
    nothing.run([])
    assert [(-5, Sex.FEMALE, Model("a"), 1.0), "called"] == RECEIVED


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["year"], "'year' is not of the form name=value"),
        (["year=1", "year=2"], "'year' was passed twice"),
        (["year=%4"], "'%4' is not a quoted word"),
        (["year=%zz"], "is not a quoted word"),
        (["year=%FF"], "is not a quoted word"),
        (["yaer=1"], "['yaer'] unknown, ['year'] missing. Was it changed after the task was created?"),
        (["year=one"], "Parameter 'year' of 'fit' cannot be read"),
        (["year=1", "sex=OTHER"], "Parameter 'sex' of 'fit' cannot be read"),
        (["year=1", "model=%5B%5D"], "Parameter 'model' of 'fit' cannot be read"),
    ],
)
def test_run_with_wrong_words(words, expected):
    with pytest.raises(ValueError) as caught:
        fit.run(words)
    assert expected in str(caught.value)


def test_words_hold_equals_signs():
    assert named_texts(["a=b%3Dc", "d="]) == {"a": "b=c", "d": ""}
    assert unquoted("") == ""
