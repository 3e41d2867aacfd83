"""What `ladm run` does: the flags of prepare, score and select in one object, and the settings of each made of it.

A field, with its default, type and help, is that of the command that it belongs to: nothing is written twice.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any

from ladm.errors import UsageError
from ladm.settings.common import model_setting, output_setting
from ladm.settings.data import DOCUMENTS, PrepareSettings
from ladm.settings.fields import Settings, setting, settings_of
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings

ROWS, SCORES, SUBSET, PAGE = "rows", "scores", "subset", "report.html"
"""What a job writes into its folder."""
JOB_FILE = "job.yaml"
"""What makes a folder that of a job: its flags."""
_OWN = ("sources", "model", "output", "tokenizer", "length", "domain_key")
_LEFT_OUT = {
    PrepareSettings: (),
    # A job has one set of rows, and what deletes or repeats a run is done to the run itself.
    ScoreSettings: ("rows", "dry_run", "overwrite", "retry_errors", "limit", "shard", "allow_other_tokenizer"),
    # `profile` is that of the score, whose band `--within profile` finds in the run.
    # Nor is there another run of rows that the job makes itself.
    SelectSettings: ("runs", "rows", "overwrite", "dry_run", "profile", "join"),
}


@dataclass(frozen=True, kw_only=True)
class _JobSettings(Settings):
    """The fields that differ from those of the three commands; None: found from the documents and the model."""

    sources: tuple[str, ...] = setting((), "", metavar="SOURCE", required=True, positional=True)
    model: str = model_setting("Model folder or Hub id that scores, with its tokenizer.", required=True)
    output: str = output_setting(
        "Folder for everything; the same command resumes.", metavar="FOLDER", holds_rows=True
    )  # fmt: skip
    tokenizer: str | None = setting(None, "Tokenizer: folder or Hub id of a model.", metavar="T", unset="as --model")
    length: int | None = setting(
        None,
        "Tokens of a row; shorter documents are dropped.",
        metavar="TOKENS",
        unset="from the documents and the model",
        at_least=1,
    )
    domain_key: str | None = setting(
        None,
        "Column or key that holds a document's domain; none: one domain for all.",
        section=DOCUMENTS,
        metavar="KEY",
        unset="found in the documents",
    )
    dry_run: bool = setting(
        False,
        "Sample documents, load the model, time up to three rows, estimate what the whole job takes; write nothing.",
    )

    def check_together(self) -> None:
        """Raise UsageError for whatever one of the three commands refuses."""
        if "-" in self.sources:
            raise UsageError(
                "ladm run cannot read standard input, because it reads its documents again when it resumes; give it a "
                "file"
            )
        # The names of folders are of no interest here, only what the commands think of the flags.
        prepare_settings(
            self, rows="rows", length=self.length or 1, domain_key=self.domain_key or "domain", domain=None
        )
        score_settings(self, rows="rows", output="scores", resolve_profile=False)
        select_settings(self, run="scores", rows="rows", output="subset", domain_key="domain")


def _fields() -> list[tuple[str, Any, Any]]:
    """The fields of the three commands that are not among those above, in the order of the flow."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for kind, left_out in _LEFT_OUT.items():
        types = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name not in (*_OWN, *left_out, *found):
                own = dataclasses.field(default=field.default, metadata=field.metadata)
                found[field.name] = (field.name, types[field.name], own)
    return list(found.values())


RunSettings: Any = dataclasses.make_dataclass(
    "RunSettings", _fields(), bases=(_JobSettings,), frozen=True, kw_only=True
)
"""The settings of `ladm run`."""


def _given(job: Any, kind: type) -> dict[str, Any]:
    """The values of the job for the fields of a command, where they are the command's own fields."""
    names = [field.name for field in settings_of(kind) if field.name not in (*_OWN, *_LEFT_OUT[kind])]
    return {name: getattr(job, name) for name in names}


def prepare_settings(job: Any, *, rows: str, length: int, domain_key: str, domain: str | None) -> PrepareSettings:
    """The settings of `ladm prepare` for the job. `domain`: that of documents without one, where no flag says it."""
    given = _given(job, PrepareSettings)
    given["domain"] = domain if given["domain"] is None else given["domain"]
    return PrepareSettings(
        sources=job.sources, tokenizer=job.tokenizer or job.model, output=rows, length=length, domain_key=domain_key,
        **given,
    )  # fmt: skip


def score_settings(
    job: Any, *, rows: str, output: str, limit: int | None = None, resolve_profile: bool = True
) -> ScoreSettings:
    """The settings of `ladm score` for the job. `limit`: rows at most, where the job does not prepare them."""
    given = {"model": job.model, "rows": rows, "output": output, "limit": limit} | _given(job, ScoreSettings)
    # The user has said by --tokenizer that the model understands these ids.
    given["allow_other_tokenizer"] = job.tokenizer is not None
    from ladm.settings.config_file import score_settings as resolved
    from ladm.settings.config_file import with_score_name

    defaults = {field.name: field.default for field in settings_of(ScoreSettings)}
    # A profile and the name of a score set what no flag says: a default must not pass for a flag.
    chosen = {name: value for name, value in given.items() if value != defaults[name]}
    return resolved(None, chosen) if resolve_profile else ScoreSettings(**with_score_name(chosen))


def select_settings(job: Any, *, run: str, rows: str, output: str, domain_key: str) -> SelectSettings:
    """The settings of `ladm select` for the job. Raises UsageError where no budget is given."""
    given = _given(job, SelectSettings)
    return SelectSettings(runs=(run,), rows=(rows,), output=output, domain_key=domain_key, **given)


def changed_values(job: Any) -> dict[str, Any]:
    """What differs from the defaults, by the names of the flags."""
    return {
        field.key: getattr(job, field.name) for field in settings_of(RunSettings)
        if getattr(job, field.name) != field.default
    }  # fmt: skip


def fields_by_part() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The names of the settings that rows, scores and the subset are made with; one that two use is the first's."""
    rows, scores, subset = (
        frozenset(field.name for field in settings_of(kind)) - {*_LEFT_OUT[kind]} for kind in _LEFT_OUT
    )
    own = frozenset(_OWN) | rows
    return own, scores - own, subset - scores - own
