"""What `ladm calibrate` and `ladm check` do: their flags with defaults, types, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ladm.errors import UsageError
from ladm.method.grid import METHOD_FIELDS, Variant
from ladm.settings.common import (
    WRITE_LOCALLY,
    DType,
    device_setting,
    domain_key_setting,
    dtype_setting,
    model_setting,
    other_tokenizer_setting,
    output_setting,
    seed_setting,
    span_tokens_setting,
)
from ladm.settings.fields import DEVICE, METHOD, Settings, setting, settings_of
from ladm.settings.score import Attention, Backend, ScoreSettings

# Room for the middle layers, which separate best: in configs/profiles/smollm2-135m.yaml 14-17 of 30, at 0.60.
DEFAULT_MAX_COST = 0.65
PACKAGED_LENGTH = 4096
"""Tokens of the documents that come with ladm, as `ladm check` cuts them."""
DOCUMENTS = "Which documents"
SEARCH = "What is searched for"
Search = Literal["signed", "layers", "heads"]
AS_SCORE = "as ladm score"


def _score_field(name: str, *, section: str) -> Any:
    """A field that is passed on to the scoring of the contrast set; None: the default of `ladm score`."""
    (same,) = (field for field in settings_of(ScoreSettings) if field.name == name)
    spec = same.spec
    return setting(None, spec.help, section=section, metavar=spec.metavar, at_least=spec.at_least, unset=AS_SCORE)


def lists_setting() -> Any:
    """Real lists, a kind that cannot be made out of documents."""
    return setting(
        None,
        "Rows that are real lists (changelogs, registers, indices), as another kind of bad row.",
        section=DOCUMENTS,
        metavar="ROWS",
        unset="none",
    )


def package_key_setting() -> Any:
    """Where a row's package is: documents of one package are never in both halves."""
    return setting(
        None,
        "Column, or key inside a column, with a row's source, such as its project or site.",
        section=DOCUMENTS,
        metavar="KEY",
        unset="the domain",
    )


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings(Settings):
    """The settings of `ladm calibrate`. `span_tokens` None: T // 256. `work` None: a folder beside `output`."""

    model: str = model_setting("Model folder or Hub id of the calculator.", required=True)
    rows: str = setting("", "Coherent long documents, as ladm score reads them.", metavar="ROWS", required=True)
    output: str = output_setting("File for the profile.", metavar="PROFILE.yaml")
    work: str | None = setting(
        None,
        "Folder for the contrast set and its run.",
        metavar="FOLDER",
        unset="PROFILE.calibration",
        not_an_address=WRITE_LOCALLY,
    )
    dry_run: bool = setting(
        False, "Make the bad rows, load the model, time up to three rows, show what the whole takes; write nothing."
    )
    lists: str | None = lists_setting()
    # More make narrower intervals. Each is scored ten times: intact, and once for every kind of bad row.
    documents: int = setting(
        128,
        "At most N documents, drawn at random; at least 32 are needed.",
        section=DOCUMENTS,
        metavar="N",
        at_least=1,
    )
    exclude_domains: tuple[str, ...] = setting(
        (),
        "Leave out the documents of a domain; may be repeated.",
        section=DOCUMENTS,
        metavar="DOMAIN",
        flag="exclude_domain",
    )
    domain_key: str = domain_key_setting(section=DOCUMENTS)
    package_key: str | None = package_key_setting()
    seed: int = seed_setting(section=DOCUMENTS)
    allow_other_tokenizer: bool = other_tokenizer_setting(section=DOCUMENTS)
    # `auc` may use all layers; `cost` lets the model stop early, which makes the scoring of a corpus cheaper.
    objective: Literal["auc", "cost"] = setting(
        "auc", "auc: the best separation of the worst kind; cost: the best within --max-cost.", section=SEARCH
    )
    max_cost: float | None = setting(
        None,
        "Share of a forward pass that --objective cost may use.",
        section=SEARCH,
        metavar="SHARE",
        unset=f"{DEFAULT_MAX_COST:g}",
        above=0,
        at_most=1,
    )
    layers: str | None = setting(
        None,
        "Search among these layers only, such as 0-10,14.",
        section=SEARCH,
        metavar="LAYERS",
        unset="all",
        digits=True,
        commas=True,
    )
    # Only signed weights can rank a repeated block or a list below a document, see docs/calibration.md.
    search: Search = setting(
        "signed",
        "Signed weights for all heads, runs of neighbouring layers, or sets of heads.",
        section=SEARCH,
    )
    # The method is the calibration's too: the profile records it and binds `ladm score` to it.
    variant: Variant | None = _score_field("variant", section=METHOD)
    span_tokens: int | None = span_tokens_setting(unset="T/256")
    m: int | None = _score_field("m", section=METHOD)
    n: int | None = _score_field("n", section=METHOD)
    n0: int | None = _score_field("n0", section=METHOD)
    d_afs: int | None = _score_field("d_afs", section=METHOD)
    d_cds: int | None = _score_field("d_cds", section=METHOD)
    device: str | None = device_setting("auto, cpu, cuda (all visible GPUs), or cuda:0,1.", default=None, unset="auto")
    dtype: DType | None = dtype_setting(default=None, unset="auto")
    attention: Attention | None = _score_field("attention", section=DEVICE)
    backend: Backend | None = _score_field("backend", section=DEVICE)
    batch_size: int | Literal["auto"] | None = setting(
        None, "Rows of equal length per step.", section=DEVICE, at_least=1, unset="auto"
    )

    def check_together(self) -> None:
        if self.max_cost is not None and self.objective != "cost":
            raise UsageError("--max-cost needs --objective cost")

    @classmethod
    def passes_over(cls, key: str, value: Any) -> bool:
        """A YAML file of `ladm score` serves here too; calibration finds the form of the score itself.

        Raises UsageError for a profile, a score or an ablation, which contradict that.
        """
        if key in ("profile", "score") or (key == "ablation" and value != "none"):
            raise UsageError(f"remove {key}, which calibration chooses itself")
        return key in (field.key for field in settings_of(ScoreSettings))

    @property
    def most_cost(self) -> float:
        """Share of a forward pass that the profile may use."""
        return 1.0 if self.objective == "auc" else DEFAULT_MAX_COST if self.max_cost is None else self.max_cost

    @property
    def scoring(self) -> dict[str, Any]:
        """The given settings of the contrast set's run, by their names in ScoreSettings."""
        names = (*METHOD_FIELDS, "layers", "device", "dtype", "attention", "backend", "batch_size")
        values = {name: getattr(self, name) for name in names if name != "ablation"}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """The settings of `ladm check`. `rows` None: the documents that come with the package."""

    model: str = model_setting(required=True)
    rows: str | None = setting(
        None, "Coherent long documents as rows.", metavar="ROWS", unset="22 documents that come with ladm"
    )
    lists: str | None = lists_setting()
    output: str | None = output_setting(
        "Folder for the runs, check.json and check.png.", metavar="FOLDER", default=None, required=False,
        unset="check-MODEL",
    )  # fmt: skip
    dry_run: bool = setting(
        False, "Make the bad rows, load the model, time up to three rows, show what the whole takes; write nothing."
    )
    length: int = setting(
        PACKAGED_LENGTH, "Tokens of a document, without --rows.", section=DOCUMENTS, metavar="TOKENS", at_least=1
    )
    span_tokens: int | None = span_tokens_setting(unset="T/256")
    documents: int = setting(
        24,
        "At most N documents, drawn at random; at least 16 are needed.",
        section=DOCUMENTS,
        metavar="N",
        at_least=1,
    )
    seed: int = seed_setting(section=DOCUMENTS)
    domain_key: str = domain_key_setting(section=DOCUMENTS)
    package_key: str | None = package_key_setting()
    allow_other_tokenizer: bool = other_tokenizer_setting(section=DOCUMENTS)
    device: str = device_setting("auto, cpu, cuda (all visible GPUs), or cuda:0,1.")
    dtype: DType = dtype_setting()

    def check_together(self) -> None:
        if self.rows is not None and self.length != PACKAGED_LENGTH:
            raise UsageError("--length has no effect with --rows, which have a length already")
