"""The meaning of `sbatch` messages: a table; unknown messages are never final."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, SubmissionDeferred, SubmissionRejected
from jobmon.plugins.batch.answers import Answer
from jobmon.plugins.batch.runner import OutcomeUnknown, rejection
from jobmon.plugins.slurm.answers import PERMANENT, TEXTS, UNREACHED

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
SITE = "sbatch: error: Requesting memory by node is not supported. Use --mem-per-cpu."

TABLE = [
    (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", Answer.FULL),
    (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", Answer.FULL),
    (POLICY, Answer.FULL),
    ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.", Answer.FULL),
    (f"sbatch: error: QOSMaxCpuPerJobLimit\n{POLICY}", Answer.REJECTED),
    (f"{FAILED}Invalid account or account/partition combination specified", Answer.REJECTED),
    ("sbatch: error: invalid partition specified: nowhere", Answer.REJECTED),
    (f"{FAILED}Invalid qos specification", Answer.REJECTED),
    (f"{FAILED}Requested node configuration is not available", Answer.REJECTED),
    (f"{FAILED}Invalid feature specification", Answer.REJECTED),
    (f"{FAILED}Memory specification can not be satisfied", Answer.REJECTED),
    ("sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.", Answer.REJECTED),
    ("sbatch: unrecognized option '--frobnicate=1'\nTry \"sbatch --help\" for more information", Answer.REJECTED),
    (f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)", Answer.REJECTED),
    (f"{SITE}\n{FAILED}Unspecified error", Answer.REJECTED),
    ("sbatch: error: lua: no account, no job\nsbatch: error: Unspecified error", Answer.REJECTED),
    (f"{FAILED}Unspecified error", Answer.UNKNOWN),
    (f"sbatch: warning: can't honor --ntasks-per-node\n{FAILED}Unspecified error", Answer.UNKNOWN),
    (f"{FAILED}Unable to contact slurm controller (connect failure)", Answer.UNREACHED),
    (f"{FAILED}Socket timed out on send/recv operation", Answer.UNREACHED),
    (f"{FAILED}Zero Bytes were transmitted or received", Answer.UNREACHED),
    (f"{FAILED}I/O error writing script/environment to file", Answer.UNKNOWN),
    (
        "sbatch: error: Invalid user for SlurmUser slurm, ignored\nsbatch: fatal: Unable to process configuration file",
        Answer.UNKNOWN,
    ),
    (f"{FAILED}Requested partition configuration not available now", Answer.UNKNOWN),
    (f"{FAILED}Invalid user id", Answer.UNKNOWN),
    ("", Answer.UNKNOWN),
]


@pytest.mark.parametrize(("error_text", "expected"), TABLE)
def test_what_sbatch_means(error_text, expected):
    assert TEXTS.answer_of(error_text) is expected


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=200))
def test_a_text_that_is_not_listed_is_never_final(text):
    listed = any(
        sign in text.lower() for sign in (*PERMANENT, *UNREACHED, "unspecified error", "policy", "unable to accept")
    )
    if not listed:
        assert TEXTS.answer_of(text) is Answer.UNKNOWN


@given(st.sampled_from(PERMANENT), st.sampled_from(UNREACHED))
def test_the_last_line_counts_first(permanent, unreached):
    assert TEXTS.answer_of(f"sbatch: error: {unreached}\n{FAILED}{permanent}") is Answer.REJECTED
    assert TEXTS.answer_of(f"sbatch: error: {permanent}\n{FAILED}{unreached}") is Answer.UNREACHED


@pytest.mark.parametrize(
    ("error_text", "kind"),
    [
        (POLICY, ClusterFull),
        (f"{FAILED}Invalid qos specification", SubmissionRejected),
        (f"{FAILED}Socket timed out on send/recv operation", OutcomeUnknown),
        (f"{FAILED}I/O error writing script/environment to file", SubmissionDeferred),
        ("", OutcomeUnknown),
    ],
)
def test_what_is_raised_says_what_slurm_said(error_text, kind):
    error = rejection(TEXTS, "sbatch", error_text)
    assert type(error) in (kind, *kind.__subclasses__())
    assert error_text.rpartition("failed: ")[2] in str(error)
    assert isinstance(error, ClusterUnavailable) == (not isinstance(error, SubmissionRejected))
