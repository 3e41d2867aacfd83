"""`run.json` -> typed values: what a run was made with. `scoring/identity` makes them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, count_of
from ladm.method.grid import Ablation, FocusKind, Method
from ladm.method.reduction import Reduction, cds_column_name
from ladm.settings.common import DType
from ladm.settings.signals import CDS, TEXT

FORMAT = 7
"""7: layers, and heads where they are stored, have a near share. 6: heads, where they are stored, have everything that
layers have. 5: every layer has CDS with and without sigma, of plain and of value-weighted PFS, copy share and sink
mass. 4: every layer has one CDS. From 4 on the numbers are float32, in `scores.parquet` and in the digits of a unit's
JSON; 3: float64.
"""
READABLE_FORMATS = (3, 4, 5, 6, 7)
FORMAT_WITH_BOTH_FORMS = 5
Signals = dict[str, dict[str, str]]
MACHINE_FIELDS = ("model", "tokenizer", "versions")
MANIFEST_FIELDS = ("settings", "layers", "score", "model", "data", "dtype")
"""The part of a run's identity that the manifest of a subset repeats."""


@dataclass(frozen=True)
class RunIdentity:
    """What a run was made with, as `run.json` holds it: created once, compared on resume; only more rows change it.

    `about`, which is for people, is not compared. A property raises KeyError where a file lacks its key.
    """

    content: dict[str, Any]

    @property
    def format(self) -> int:
        """The version of the run folder's files."""
        return int(self.content["format"])

    @property
    def is_as_written_now(self) -> bool:
        """Would this version store the same columns?"""
        # The columns of the other signals are those of format 5.
        return self.format == FORMAT or (self.format >= FORMAT_WITH_BOTH_FORMS and CDS not in self.signals)

    def with_format(self, number: int) -> RunIdentity:
        """The same identity as a run of another format would have it."""
        return RunIdentity(self.content | {"format": number})

    @property
    def machine(self) -> dict[str, Any]:
        """What every machine that works on the run must have in common: model, tokenizer and versions."""
        return {key: self.content[key] for key in MACHINE_FIELDS}

    @property
    def num_rows(self) -> int:
        return int(self.content["data"]["rows"])

    @property
    def part(self) -> dict[str, int] | None:
        """Of what `ladm rescore --so-far` made: how many `rows` of its data it has, in how many `units`. None: all."""
        found = self.content.get("part")
        return None if found is None else {name: int(found[name]) for name in ("rows", "units")}

    @property
    def num_results(self) -> int:
        """The rows that have a score, or a reason why not, once the run is finished."""
        return self.num_rows if self.part is None else self.part["rows"]

    @property
    def rows_in_words(self) -> str:
        """`40 rows`, or of those so far `24 of 40 rows`."""
        before = "" if self.num_results == self.num_rows else f"{self.num_results:,} of "
        return f"{before}{count_of(self.num_rows, 'row')}"

    @property
    def unit_rows(self) -> int:
        """Rows in a unit."""
        return int(self.content["unit_rows"])

    @property
    def signals(self) -> Signals:
        """What was computed of a row in the run's own pass: by name, how. Signals added later are not among them."""
        return cast(Signals, self.content.get("signals", {CDS: {}}))

    @property
    def method(self) -> Method:
        """The eight values that the rows were scored with. Raises LadmError for a run without CDS."""
        return Method.from_dict(self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What CDS was computed with. Raises LadmError for a run without CDS."""
        self._require_cds()
        return cast(dict[str, Any], self.content["settings"])

    def _require_cds(self) -> None:
        if CDS not in self.signals:
            raise LadmError(f"a run of {', '.join(self.signals)} alone has no CDS; score its rows with --signals cds")

    @property
    def record(self) -> str:
        """What was stored of each row besides its score: `layers`, `heads`, `range` or `forms`."""
        return str(self.settings["record"])

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose CDS were stored, in that order."""
        return tuple(self.content["layers"])

    @property
    def reduction(self) -> Reduction:
        """How the score was made from the stored CDS. Raises LadmError for a run without CDS."""
        self._require_cds()
        score = self.content["score"]
        heads = score["heads"] and tuple((layer, head) for layer, head in score["heads"])
        weights = score["weights"] and tuple(score["weights"])
        return Reduction(
            how=score["reduce"], layers=tuple(score["layers"]), heads=heads, weights=weights,
            focus=score.get("focus", "plain"),
        )  # fmt: skip

    @property
    def score_form(self) -> Ablation:
        """The ablation of the CDS that make the score, which may not be that of the method."""
        self._require_cds()
        # There is a key only where the form differs from that of the settings.
        return cast(Ablation, self.content["score"].get("form", self.settings["ablation"]))

    def cds_column(self, form: Ablation, *, heads: bool, focus: FocusKind = "plain") -> str:
        """The column of `scores.parquet` that holds the CDS of that form, if the run stored it."""
        return cds_column_name(heads=heads, second_form=form != self.settings["ablation"], focus=focus)

    @property
    def score_column(self) -> str:
        """The column of the CDS that make the score."""
        reduction = self.reduction
        return self.cds_column(self.score_form, heads=reduction.heads is not None, focus=reduction.focus)

    @property
    def stores_both_forms(self) -> bool:
        """Were CDS of the layers stored with sigma and without?"""
        always = self.format >= FORMAT_WITH_BOTH_FORMS
        return (always or self.record == "forms") and self.settings["ablation"] == "none"

    @property
    def model(self) -> dict[str, Any]:
        """`type` and `sha256` by file name."""
        return cast(dict[str, Any], self.content["model"])

    @property
    def model_sha256(self) -> dict[str, str]:
        return cast(dict[str, str], self.content["model"]["sha256"])

    @property
    def runs_model(self) -> bool:
        """Did any signal run the model? Statistics of texts need only its configuration and its tokenizer."""
        return tuple(self.signals) != (TEXT,)

    @property
    def names_weights(self) -> bool:
        """Does it name the weights of its model? Statistics of texts do not, unless they were added to a run."""
        return any(name != "config.json" for name in self.model_sha256)

    def has_model_of(self, other: RunIdentity) -> bool:
        """Were both made with the same model, as far as both name its files?

        Statistics of texts name no weights, and those of some older runs no model.
        """
        if self.runs_model and other.runs_model:
            return bool(self.content.get("model") == other.content.get("model"))
        mine, its = ((of.content.get("model") or {}).get("sha256", {}) for of in (self, other))
        return all(mine[name] == its[name] for name in mine.keys() & its.keys())

    @property
    def data(self) -> dict[str, Any]:
        """Number and digest of the rows, as in `Rows.identity`."""
        return cast(dict[str, Any], self.content["data"])

    @property
    def dtype(self) -> DType:
        """The precision that the model ran in."""
        return cast(DType, self.content["dtype"])

    @property
    def backend(self) -> dict[str, str]:
        """`device` (its kind), `attention`, `focus`, and `fused` unless it is "none": the kernels that were used."""
        return cast(dict[str, str], self.content["backend"])

    @property
    def versions(self) -> dict[str, str]:
        return cast(dict[str, str], self.content["versions"])

    @property
    def rows_content(self) -> str | None:
        """The digest by which the run's rows are recognised among more, see `Rows.content`; older runs have none."""
        return cast(str | None, self.about.get("rows_content"))

    def is_of_same_rows(self, other: RunIdentity) -> bool:
        """Are both of the same rows? One may have been scored before rows with other keys of meta were appended."""
        is_known = self.rows_content is not None and self.num_rows == other.num_rows
        return self.data == other.data or (is_known and self.rows_content == other.rows_content)

    def has_rows(self, rows: Rows) -> bool:
        """Are these the rows of the run, whatever keys of meta rows that were appended later have added?"""
        return len(rows) == self.num_rows and rows.begin_with(self.data, content=self.rows_content)

    @property
    def about(self) -> dict[str, Any]:
        """For people: where rows and model were. Not compared on resume."""
        return cast(dict[str, Any], self.content.get("about", {}))

    @property
    def rows_name(self) -> str:
        """Where the rows were: a folder or a Hub id."""
        return str(self.about["rows"])

    @property
    def model_name(self) -> str:
        """Where the model was: a folder or a Hub id."""
        return str(self.about["model"])

    @property
    def is_rescored(self) -> bool:
        """Was the run made by `ladm rescore`? Then it has results and no units."""
        return "rescored_from" in self.about

    def for_manifest(self) -> dict[str, Any]:
        """The part of it that the manifest of a subset repeats."""
        part = {} if self.part is None else {"part": self.part}
        return {name: self.content[name] for name in MANIFEST_FIELDS} | {"signals": self.signals} | part
