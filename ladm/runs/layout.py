"""The names of a run folder's files, and which files are ladm's own to remove. Imports no torch.

run.json                  what the run was started with: created once; only more rows change it
units/000007.open         rows of an unfinished unit, appended a batch at a time, each batch fsynced
units/000007.jsonl        a sealed unit: having this name is the commit
units/000007.claim-0, 000007.open-0-5f3c    only while several launches share the run
sorted_by_score.jsonl, scores.parquet, errors.jsonl    the results, present once the run is finished
unigrams.npy              how common every token is, where statistics of the texts are among the signals
signals/text/             a run folder of its own for each signal that was added later
inspected/12.json, report.html    what `ladm inspect` and `ladm report` add
.lock, .workers                what the locks are on; they stay
.holder, .holder-5f3c, .progress-0, .finishing-0, .sorting-abcd1234/    while a command runs
"""

from __future__ import annotations

import re

from ladm.storage.holder_names import HOLDER_FILES
from ladm.storage.locks import SORTING

IDENTITY_FILE = "run.json"
UNITS = "units"
SORTED_FILE = "sorted_by_score.jsonl"
PARQUET_FILE = "scores.parquet"
ERRORS_FILE = "errors.jsonl"
RESULT_FILES = (SORTED_FILE, PARQUET_FILE, ERRORS_FILE)
UNIGRAMS_FILE = "unigrams.npy"
INSPECTED = "inspected"
SIGNALS = "signals"
"""Holds a run folder for each signal that was added to the finished run."""
REPORT_FILE = "report.html"
PAGE_MARK = '<meta name="generator" content="ladm report">'
"""What every page of `ladm report` has near its beginning: without it, a report.html is somebody else's."""
FINISHING = ".finishing"

CLAIM = re.compile(r"(\d+)\.claim-(\d+)")
"""A claim's file name: the unit, and the generation of the claim."""
SEALED_UNIT = re.compile(r"(\d{6,})\.jsonl")
UNIT_FILES = re.compile(
    r"\d{6,}\.(jsonl|open(-\d+-[0-9a-f]+)?(\.[0-9a-f]+)?(\.partial)?|claim-\d+(\.[0-9a-f]+\.partial)?)|\.nfs[0-9a-f]+"
)
"""What ladm may leave in `units`. NFS renames a file that is removed while it is open to `.nfs...`."""
SHARED_UNIT_FILES = re.compile(r"\.(claim-|open-)|\.partial$")
"""Part of the name of a file that only launches that share a run write."""
_PARTIAL_FILES = r"(run\.json|unigrams\.npy|sorted_by_score\.jsonl|scores\.parquet|errors\.jsonl)\.[0-9a-f]+\.partial"
LEFTOVERS = re.compile(
    rf"\.lock|\.workers|\.progress-\d+|\.finishing-\d+(\.[0-9a-f]+\.partial)?|{SORTING.pattern}|{_PARTIAL_FILES}|units"
    rf"|unigrams\.npy|{HOLDER_FILES.pattern}"
)
"""What a command that was killed may leave in a run folder that has no run.json."""
