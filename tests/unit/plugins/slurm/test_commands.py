"""The command lines of Slurm's tools."""

import pytest

from jobmon.plugins.batch import Mark, Submission, job_name, mark_of
from jobmon.plugins.batch.submission import job_script
from jobmon.plugins.slurm import commands
from jobmon.plugins.slurm.commands import FORM, VARIABLES


def submission(length=1, first=0, name="align reads", output="/data/logs/1/slurm-jobs.log", **requested):
    return Submission(name, Mark("jm-ab12-3-4", first, length), "python worker.py", output, requested)


def test_a_single_job_says_what_it_asks_for_in_slurms_units():
    words = commands.sbatch_arguments(submission(queue="short", cores=1.5, memory=0.0500001, runtime=61.0))
    assert words == [
        "sbatch",
        "--parsable",
        "--no-requeue",
        "--export=ALL",
        "--input=/dev/null",
        "--open-mode=append",
        "--job-name=align_reads.jm-ab12-3-4-0+1",
        "--comment=jm-ab12-3-4-0+1",
        "--output=/data/logs/1/slurm-jobs.log",
        "--partition=short",
        "--cpus-per-task=2",
        "--mem=52M",
        "--time=2",
    ]


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ({"project": "a", "qos": "high", "reservation": "r"}, ["--account=a", "--qos=high", "--reservation=r"]),
        ({"gpus": 2, "gres": "tmpdisk:100"}, ["--gpus=2", "--gres=tmpdisk:100"]),
        ({"nodes": 4, "tasks_per_node": 8}, ["--nodes=4", "--ntasks-per-node=8"]),
        ({"constraints": ["avx", "ib"], "constraint": "big"}, ["--constraint=big&avx&ib"]),
        ({"exclusive": True}, ["--exclusive"]),
        ({"exclusive": "user"}, ["--exclusive=user"]),
        ({"exclusive": False}, []),
        ({"excluded_hosts": ["n1", "n2"]}, ["--exclude=n1,n2"]),
        ({"memory": 7.8125}, ["--mem=8000M"]),
        ({"sbatch": {"nice": 100, "hold": True, "mail_type": None, "licenses": ["a", "b"]}},
         ["--nice=100", "--hold", "--licenses=a", "--licenses=b"]),
        ({"sbatch": {"A": "mine"}}, ["-Amine"]),
        ({"sbatch": ["--nice=100", "-H"]}, ["--nice=100", "-H"]),
    ],
)  # fmt: skip
def test_each_key_becomes_its_option(requested, words):
    assert commands.sbatch_arguments(submission(**requested))[9:] == words


def test_an_array_counts_from_nought_and_its_script_adds_where_it_begins():
    part = submission(length=4, first=8, array_limit=2)
    assert "--array=0-3%2" in commands.sbatch_arguments(part)
    assert job_script(part, VARIABLES, FORM).splitlines()[2:] == [
        'export JOBMON_DISTRIBUTOR_ID="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
        ' JOBMON_STEP="$((SLURM_ARRAY_TASK_ID + 8))"',
        'export JOBMON_JOB_END_TIME="${SLURM_JOB_END_TIME:-}"',
        "exec python worker.py",
    ]


def test_a_path_with_a_percent_sign_is_no_pattern():
    assert "--output=/data/50%%/log" in commands.sbatch_arguments(submission(output="/data/50%/log"))


def test_a_name_of_any_letters_still_ends_with_the_mark():
    name = job_name("größe:\n42 'x'" * 20, Mark("jm-ab12-3-4", 8, 4))
    assert mark_of(name) == Mark("jm-ab12-3-4", 8, 4)
    assert len(name) < 100
    assert name.isascii()


@pytest.mark.parametrize("name", ["wrap", "jm-", "jm-a-1", "xjm-ab-1-2-0+1", "", "jm-ab-1-2-0+1 "])
def test_a_name_without_a_mark_is_none_of_ours(name):
    assert mark_of(name) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"time": 5}, "use 'runtime'"),
        ({"p": "long"}, "use 'queue'"),
        (["-J", "x"], "not an option"),
        (["-J", "x"], "launch token"),
        (["--output=x"], "use 'stdout'"),
        ({"--requeue": True}, "itself retries"),
        ("--nice", "must be a dict"),
        (["nice"], "not an option"),
    ],
)
def test_options_that_would_break_it_are_refused_with_what_to_do_instead(given, words):
    assert any(words in problem for problem in commands.problems_with_options(given))


@pytest.mark.parametrize("given", [None, {"nice": 5}, ["--nice=5", "-H"], {}])
def test_other_options_are_taken(given):
    assert commands.problems_with_options(given) == []


def test_steps_that_follow_each_other_are_cancelled_as_one_expression():
    ids = ["7", "12_3", "12_1", "12_2", "12_9", "7"]
    assert commands.scancel_arguments(ids) == [["scancel", "12_[1-3,9]", "7"]]
    assert commands.scancel_arguments([*ids, "12"]) == [["scancel", "12", "7"]], "the job as a whole"


def test_many_jobs_take_few_commands():
    assert len(commands.scancel_arguments(str(number) for number in range(1_001))) == 3
    assert len(commands.scancel_arguments(f"5_{number}" for number in range(10_000))) == 1
    assert commands.scancel_arguments([]) == []


def test_what_an_outer_job_or_a_users_habits_would_tell_slurms_tools_is_left_out():
    ours = {"PATH": "/bin", "SLURM_CONF": "/etc/x", "SBATCH_ACCOUNT": "a", "JOBMON_DATA_DIR": "/d"}
    outer = {"SLURM_JOB_ID": "5", "SLURM_MEM_PER_CPU": "1", "SQUEUE_FORMAT": "%i", "SBATCH_ARRAY_INX": "0-5"}
    assert commands.job_environment({**ours, **outer}) == ours
    assert commands.tool_environment({**ours, **outer}).items() >= {"TZ": "UTC0", "SLURM_BITSTR_LEN": "0"}.items()


def test_times_are_asked_for_as_the_tools_then_read_them():
    assert "--starttime=1970-01-02T00:00:01" in commands.sacct_arguments(0, 86_401.0)
