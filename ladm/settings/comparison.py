"""What `ladm top` and `ladm compare` do: their flags with defaults, types, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.errors import UsageError
from ladm.settings.common import domain_key_setting, output_setting, run_setting, runs_setting
from ladm.settings.expressions import Expression, parse_expression
from ladm.settings.fields import setting
from ladm.settings.joins import ColumnSettings, JoinSettings, join_setting, require_joined
from ladm.settings.quantities import parse_percent

KINDS = "Documents of known kinds"
MOST_RUNS = 2
MOST_COLUMNS = 40
INTACT = "intact"


@dataclass(frozen=True, kw_only=True)
class TopSettings(JoinSettings):
    """The settings of `ladm top`. `rows` None: where the run found them."""

    run: str = run_setting()
    number: int = setting(10, "How many documents.", short="-n", metavar="N", at_least=1)
    by: str = setting("score", "Column or expression to rank by, as in ladm select.", metavar="COLUMN|EXPRESSION")
    join: tuple[str, ...] = join_setting()
    worst: bool = setting(False, "The lowest instead of the highest.")
    domain: str | None = setting(None, "Only documents of this domain.", metavar="D", unset="all")
    domain_key: str = domain_key_setting("Key inside meta that holds a row's domain; none: one domain for all.")
    rows: str | None = setting(None, "The rows that RUN scored.", metavar="ROWS", unset="where RUN found them")

    def check_together(self) -> None:
        require_joined(self.ranking.names, self.joins)

    @property
    def ranking(self) -> Expression:
        """What documents are ranked by."""
        return parse_expression(self.by)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(ColumnSettings):
    """The settings of `ladm compare`. `columns` None: all of one run, the score of two. `output` None: no page."""

    runs: tuple[str, ...] = runs_setting()
    columns: str | None = setting(
        None,
        "Columns or expressions to compare, separated by commas.",
        metavar="A,B,C",
        commas=True,
        unset="all of one RUN; the score of two",
    )
    join: tuple[str, ...] = join_setting()
    top: float = setting(
        20.0,
        "The overlap is that of the best P% of the rows by each column.",
        metavar="P%",
        parse=parse_percent,
        above=0,
        at_most=100,
    )
    show: int = setting(
        3,
        "Number of documents to show that the first two columns rank most differently, in each direction.",
        metavar="N",
        at_least=0,
    )
    all_pairs: bool = setting(
        False, "Print all pairs of columns; by default, many columns without --columns are only paired with the first."
    )
    domain_key: str = domain_key_setting("Key inside meta that holds a row's domain; none: one domain for all.")
    rows: str | None = setting(None, "The rows that RUN scored.", metavar="ROWS", unset="where RUN found them")
    output: str | None = output_setting(
        "A page for a browser.", metavar="FILE", default=None, required=False, unset="none"
    )
    kinds: str | None = setting(
        None, "Column of the rows with the kind of each row; adds the AUC of intact over every other kind.",
        section=KINDS, metavar="COLUMN", unset="none",
    )  # fmt: skip
    intact: str = setting(INTACT, "The kind that should rank highest.", section=KINDS, metavar="KIND")
    cluster: str | None = setting(
        None, "Column of the rows to bootstrap by for the intervals, such as the package.",
        section=KINDS, metavar="COLUMN", unset="each row alone",
    )  # fmt: skip
    seed: int = setting(0, "Seed of the intervals and of the column random.", section=KINDS, metavar="N", at_least=0)

    def check_together(self) -> None:
        if len(self.runs) > MOST_RUNS:
            raise UsageError(f"{len(self.runs)} runs given; at most {MOST_RUNS} can be compared")
        if self.columns is not None and len(self.expressions) > MOST_COLUMNS:
            raise UsageError(f"--columns has {len(self.expressions)} columns; at most {MOST_COLUMNS} can be compared")
        if self.all_pairs and self.columns is not None:
            raise UsageError("--all-pairs has no effect with --columns, whose pairs are all printed")
        if self.cluster is not None and self.kinds is None:
            raise UsageError("--cluster has no effect without --kinds")
        if self.intact != INTACT and self.kinds is None:
            raise UsageError("--intact has no effect without --kinds")
        if self.seed and self.kinds is None and not self._may_read_random():
            raise UsageError("--seed has no effect without --kinds or the column random")
        require_joined((name for expression in self.expressions for name in expression.names), self.joins)

    def _may_read_random(self) -> bool:
        """Is the column random compared? By default it is one of all those of a single run."""
        names = {name for expression in self.expressions for name in expression.names}
        return "random" in names if self.columns is not None else len(self.runs) == 1
