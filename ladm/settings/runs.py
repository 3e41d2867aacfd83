"""What the commands that read a finished or running run do: status, verify, rescore, annotate, inspect, report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ladm.errors import UsageError
from ladm.settings.common import (
    DType,
    device_setting,
    domain_key_setting,
    dtype_setting,
    model_setting,
    output_setting,
    run_setting,
)
from ladm.settings.expressions import Expression, parse_expression
from ladm.settings.fields import Settings, setting
from ladm.settings.joins import ColumnSettings, join_setting, require_joined, split_name
from ladm.settings.layers import AFTER_SINKS, parse_layers
from ladm.settings.named_scores import is_profile, named_score
from ladm.settings.score import Reduce
from ladm.settings.signals import CDS

# Each inspected document costs a forward pass, and its text a place in the report.
MOST_INSPECTED = 100
MOST_FURTHER = 16
DOCUMENTS = "Which documents"


@dataclass(frozen=True, kw_only=True)
class StatusSettings(Settings):
    """The settings of `ladm status`."""

    run: str = run_setting()


@dataclass(frozen=True, kw_only=True)
class VerifySettings(Settings):
    """The settings of `ladm verify`. `rows`, `model` None: where the run found them."""

    run: str = run_setting()
    deep: bool = setting(False, "Also check that the model and the rows are those that the run was started with.")
    rows: str | None = setting(
        None, "With --deep: the rows that RUN scored.", metavar="ROWS", unset="where RUN found them"
    )
    model: str | None = model_setting(
        "With --deep: the model that scored them.", default=None, unset="where RUN found it"
    )

    def check_together(self) -> None:
        for name in ("rows", "model"):
            if getattr(self, name) is not None and not self.deep:
                raise UsageError(f"--{name} has no effect without --deep")


@dataclass(frozen=True, kw_only=True)
class RescoreSettings(Settings):
    """The settings of `ladm rescore`. None: as the run was scored."""

    run: str = run_setting()
    output: str = output_setting("Folder for the new run.", metavar="RUN2")
    so_far: bool = setting(
        False, "Keep the score of RUN, which is not finished, and have only the rows whose units are complete."
    )
    score: str | None = setting(
        None, "released, paper or robust, as in ladm score; or a .yaml file, as with --profile.", metavar="SCORE",
        unset="none",
    )  # fmt: skip
    profile: str | None = setting(None, "File written by ladm calibrate.", metavar="PROFILE", unset="none")
    reduce: Reduce | None = setting(None, "How the scores of the layers become one score.", unset="as RUN")
    layers: str | None = setting(
        None,
        f"Layers to use, such as 0-10,14 (with --score robust all of them, not their later half); or {AFTER_SINKS}, "
        "those after the last layer of RUN that has sinks.",
        metavar="LAYERS", unset="as RUN, or as SCORE", digits=True, commas=True,
    )  # fmt: skip

    def check_together(self) -> None:
        if self.so_far:
            for name in ("score", "profile", "reduce", "layers"):
                if getattr(self, name) is not None:
                    raise UsageError(f"--so-far keeps the score of RUN; leave --{name} out, and rescore what it makes")
            return
        if self.layers != AFTER_SINKS:
            parse_layers(self.layers)
        if self.score is not None and self.profile is not None:
            raise UsageError(f"--score {self.score} and --profile {self.profile} are two scores; give one of them")
        if self.profile_path is not None and (self.reduce is not None or self.layers is not None):
            flag = "--profile" if self.score is None else f"--score {self.score}"
            raise UsageError(f"{flag} sets the layers and the reduction; leave --reduce and --layers out")
        if self.score is not None and not is_profile(self.score):
            named_score(self.score)
            if self.reduce is not None:
                raise UsageError(f"--score {self.score} is a mean over layers; leave --reduce out")
        if self.score is None and self.profile is None and self.reduce is None and self.layers is None:
            raise UsageError("nothing to change: give --score, --profile, --reduce or --layers")

    @property
    def profile_path(self) -> str | None:
        """The file of the profile, whichever of the two flags gave it; None: there is none."""
        return self.score if is_profile(self.score) else self.profile


@dataclass(frozen=True, kw_only=True)
class AnnotateSettings(Settings):
    """The settings of `ladm annotate`. `rows` None: where the run found them."""

    run: str = run_setting()
    rows: str | None = setting(None, "The rows that RUN scored.", metavar="ROWS", unset="where RUN found them")
    unigrams: str | None = setting(
        None,
        "Token counts of a corpus, as in a run's unigrams.npy; statistics made with others are computed again. "
        "far_rare can only be compared between runs with the same counts.",
        metavar="FILE",
        unset="those in use, or counted on the rows",
    )
    num_proc: int | None = setting(None, "Processes.", metavar="N", unset="one for each core", at_least=1)


@dataclass(frozen=True, kw_only=True)
class InspectSettings(Settings):
    """The settings of `ladm inspect`. `rows`, `model`, `dtype` None: those of the run."""

    run: str = run_setting()
    top: int | None = setting(
        None, "The N best documents.", section=DOCUMENTS, metavar="N", unset="3; 0 with --id", at_least=0
    )
    bottom: int | None = setting(
        None,
        "The N worst documents.",
        section=DOCUMENTS,
        metavar="N",
        unset="1; 0 with --top or --id",
        at_least=0,
    )
    id: tuple[str, ...] = setting(
        (),
        "The document with this id, or else index; may be repeated.",
        section=DOCUMENTS,
        metavar="ID|INDEX",
        digits=True,
    )
    rows: str | None = setting(None, "The rows that RUN scored.", metavar="ROWS", unset="where RUN found them")
    model: str | None = model_setting("The model that scored them.", default=None, unset="where RUN found it")
    device: str = device_setting("auto, cpu or cuda:0.")
    dtype: DType | None = dtype_setting(default=None, unset="as RUN")

    def check_together(self) -> None:
        if not (self.first or self.last or self.id):
            raise UsageError("nothing to inspect: give --top, --bottom or --id")
        if self.first + self.last + len(self.id) > MOST_INSPECTED:
            raise UsageError(f"at most {MOST_INSPECTED} documents can be inspected at once; choose fewer")

    @property
    def first(self) -> int:
        """How many of the best documents."""
        return self.top if self.top is not None else 0 if self.id else 3

    @property
    def last(self) -> int:
        """How many of the worst documents."""
        return self.bottom if self.bottom is not None else 0 if self.id or self.top is not None else 1


def page_ranking(by: str, signals: Collection[str]) -> str:
    """What the page of a run of these signals ranks by, if a subset was selected from it `by` a column or expression.

    With CDS it is the score, which the page then explains. Nor is it anything but columns of the run itself whose
    values are the same in any command: other columns need further flags, and `random` a seed.
    """
    names = parse_expression(by).names
    is_own = all(split_name(name)[0] == "" and name != "random" for name in names)
    return by if is_own and CDS not in signals else "score"


@dataclass(frozen=True, kw_only=True)
class ReportSettings(ColumnSettings):
    """The settings of `ladm report`. `output` None: `report.html` in the run folder."""

    run: str = run_setting()
    output: str | None = output_setting(
        "The page.", metavar="FILE", default=None, required=False, unset="RUN/report.html"
    )
    subset: str | None = setting(
        None, "Subset that ladm select made from RUN; the page marks its documents.", metavar="SUBSET", unset="none"
    )
    rows: str | None = setting(
        None, "The rows that RUN scored, for their texts.", metavar="ROWS", unset="where RUN found them"
    )
    by: str = setting("score", "Column or expression to rank by, as in ladm select.", metavar="COLUMN|EXPRESSION")
    columns: str | None = setting(
        None,
        "More columns or expressions for the explorer, separated by commas, such as rows.quality.",
        metavar="A,B,C",
        commas=True,
        unset="those used by SUBSET",
    )
    join: tuple[str, ...] = join_setting()
    domain_key: str = domain_key_setting("Key inside meta that holds a row's domain; none: one domain for all.")

    def check_together(self) -> None:
        if len(self.expressions) > MOST_FURTHER:
            raise UsageError(f"--columns has {len(self.expressions)} columns; at most {MOST_FURTHER} can be shown")
        require_joined((name for each in (self.ranking, *self.expressions) for name in each.names), self.joins)

    @property
    def ranking(self) -> Expression:
        """What documents are ranked by."""
        return parse_expression(self.by)
