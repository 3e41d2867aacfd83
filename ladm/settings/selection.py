"""What `ladm select` does: its flags with defaults, types, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ladm.errors import UsageError, count_of
from ladm.settings.common import domain_key_setting, output_setting, require_domain_has_effect, runs_setting
from ladm.settings.expressions import Expression, parse_expression
from ladm.settings.fields import flag, setting
from ladm.settings.guards import BY_DOMAIN, POOL_GUARDS, BandGuard, Guard, parse_guards, require_of_rows
from ladm.settings.id_lists import exclude_ids_setting, only_ids_setting
from ladm.settings.joins import JoinSettings, is_file, join_setting, require_joined
from ladm.settings.quantities import parse_percent, parse_token_budget
from ladm.settings.subset import WRITING, SubsetFormat, check_subset, resolve_format
from ladm.settings.value_caps import ValueCap, max_per_setting, parse_caps
from ladm.settings.value_guards import ValueGuard
from ladm.storage.files import data_set_path

BUDGET = "How much: one of these"
ORDER = "Ranking, and which documents are excluded"
CHOICE = "How the budget is shared among domains"
BUDGETS = ("tokens", "documents", "top", "min_score")
DEFAULT_TEMPERATURE = 1.0


@dataclass(frozen=True, kw_only=True)
class SelectSettings(JoinSettings):
    """The settings of `ladm select`. `rows` empty: where the runs found them."""

    runs: tuple[str, ...] = runs_setting()
    rows: tuple[str, ...] = setting(
        (),
        "The rows that RUN scored; one for each RUN.",
        metavar="ROWS...",
        unset="where RUN found them",
        several=True,
    )
    output: str = output_setting("Folder for the subset.", metavar="SUBSET", not_an_address=None)
    tokens: int | str | None = setting(
        None,
        "At most N tokens (500M, 250k; 1B is 10^9), or that share of what can be selected.",
        section=BUDGET,
        metavar="N|P%",
        unset="no token budget",
        parse=parse_token_budget,
        at_least=1,
    )
    documents: int | None = setting(
        None, "N documents.", section=BUDGET, metavar="N", unset="no document budget", at_least=1
    )
    top: float | None = setting(
        None,
        "P % of the documents: the best of each domain, in proportion to its size.",
        section=BUDGET,
        metavar="P%",
        unset="no share",
        parse=parse_percent,
        above=0,
        at_most=100,
    )
    min_score: float | None = setting(
        None,
        "Every document whose score (or --by value) is at least X.",
        section=BUDGET,
        metavar="X",
        unset="no threshold",
    )
    by: str = setting(
        "score",
        "What to rank by, highest first: a column, or an expression of columns and numbers with + - * / ( ), rank(x), "
        "z(x), log(x). rows.NAME is a column of the rows.",
        section=ORDER,
        metavar="COLUMN|EXPRESSION",
    )
    within: tuple[str, ...] = setting(
        (),
        "Only documents with COLUMN from LOW to HIGH: values, quantiles such as 20%-80%, or the band of a profile. "
        f"Quantiles are those of the whole pool, with {BY_DOMAIN} behind them those of each domain. Texts, dates and "
        "booleans of the rows: rows.lang:en,de, rows.date:2024-01..2024-06; '!' excludes them. pool stands for "
        f"{' '.join(POOL_GUARDS)}, and pool{BY_DOMAIN} for the same in each domain. May be repeated.",
        section=ORDER,
        metavar="COLUMN:LOW-HIGH|VALUES|pool|profile",
    )
    join: tuple[str, ...] = join_setting(section=ORDER)
    profile: str | None = setting(
        None, "Profile with the band for --within.", section=ORDER, metavar="PROFILE", unset="as RUN"
    )
    exclude_domains: tuple[str, ...] = setting(
        (),
        "Exclude a domain, as if its documents did not exist: the others share the budget; may be repeated.",
        section=ORDER,
        metavar="DOMAIN",
        flag="exclude_domain",
    )
    exclude_ids: tuple[str, ...] = exclude_ids_setting(section=ORDER)
    only_ids: tuple[str, ...] = only_ids_setting(section=ORDER)
    sample: bool = setting(
        False, "Draw documents at random, better ones more likely, instead of taking the best.", section=ORDER
    )
    temperature: float | None = setting(
        None,
        "Temperature of --sample, in standard deviations within a domain: near 0 it takes the best, at high values "
        "almost any.",
        section=ORDER,
        metavar="T",
        unset=f"{DEFAULT_TEMPERATURE:g}",
        above=0,
    )
    seed: int | None = setting(
        None, "Random seed of --sample and of the column random.", section=ORDER, metavar="N", unset="0", at_least=0
    )
    # Windows of one book often score alike, and a subset of one book teaches little.
    max_per_document: int | None = setting(
        None,
        "At most K rows of one document; of two windows that overlap by more than half, only the better one.",
        section=ORDER,
        metavar="K",
        unset="2 where `ladm prepare` cut windows; all with document_mean",
        at_least=1,
    )
    max_per: tuple[str, ...] = max_per_setting(section=ORDER)
    # The published code takes a whole percentage of every domain.
    rule: Literal["exact", "percent"] = setting(
        "exact",
        "exact: never more than the budget. percent: the same percentage of every domain, as the published code takes; "
        "exceeds the budget by up to about 1% of the pool, and by more where domains are small.",
        section=CHOICE,
    )
    quota: str | None = setting(
        None,
        "Share of each domain: in proportion to its tokens or documents, or by weights, from a YAML file or as '{web: "
        '2, code: 1}\'; the name "*" is for all other domains.',
        section=CHOICE,
        metavar="tokens|documents|WEIGHTS",
        mapping=True,
        unset="as the budget is counted",
    )
    domain_key: str = domain_key_setting(
        "Column, or key inside a column, that holds a row's domain; none: one domain for all.", section=CHOICE
    )
    domain: str | None = setting(
        None, "Domain for rows that have none.", section=CHOICE, metavar="NAME", unset="an error"
    )
    # Without it a pool that is too small is an error, because taking everything is no selection.
    allow_small_pool: bool = setting(False, "Take everything if the pool is smaller than the budget.", section=CHOICE)
    # None, because the Hub shows and streams Parquet, and everything else here reads what save_to_disk writes.
    format: SubsetFormat | None = setting(
        None,
        "A data set of save_to_disk, Parquet or JSONL shards, Megatron-LM's .bin and .idx, or NumPy token files.",
        section=WRITING,
        unset="arrow; parquet with --push",
    )
    keep_all: bool = setting(
        False, "Write every row, with its score (none where it is excluded) and whether it was taken.", section=WRITING
    )
    push: str | None = setting(
        None,
        "Also upload the subset to the Hub; a data set that does not exist is created as private.",
        section=WRITING,
        metavar="ORG/NAME",
        unset="no upload",
    )
    overwrite: bool = setting(
        False, "Replace the subset that is there, once the new one is complete.", section=WRITING, destructive=True
    )
    dry_run: bool = setting(False, "Show what would be selected; write nothing.")

    def check_together(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if not given:
            raise UsageError("how much to select is missing; give --tokens, --documents, --top or --min-score")
        if len(given) > 1:
            raise UsageError(f"{flag(given[0])} and {flag(given[1])} are two budgets; give one of them")
        if isinstance(self.tokens, str):
            parse_percent(self.tokens)
        check_subset(self.format, keep_all=self.keep_all, push=self.push)
        if self.overwrite and "://" in self.output:
            raise UsageError("--overwrite needs a folder of this machine, not an address; give another --output")
        # The datasets library writes this format alone; what goes to an address it writes to this machine first.
        if resolve_format(self.format, push=self.push) == "arrow" and "://" not in self.output:
            data_set_path(self.output)
        self._check_rule(given[0])
        self._check_sampling()
        parse_caps(self.max_per)
        require_domain_has_effect(self.domain, self.domain_key)
        if len(self.runs) > 1 and not all(map(is_file, self.joins.values())):
            raise UsageError("with several RUNs, --join takes only files: a joined run has the rows of one run only")
        require_joined(self.column_names, self.joins)
        require_of_rows(self.value_guards)
        if self.rows and len(self.rows) != len(self.runs):
            found = f"{count_of(len(self.runs), 'run')} but {len(self.rows)} --rows"
            raise UsageError(f"{found}; give the rows of every RUN, in the same order")
        if self.profile is not None and not any(isinstance(guard, BandGuard) for guard in self.guards):
            raise UsageError("--profile has no effect without --within profile")

    def _check_rule(self, budget: str) -> None:
        counted = self.documents is not None or isinstance(self.tokens, int)
        if self.rule == "percent" and not isinstance(self.tokens, int):
            raise UsageError(f"--rule percent needs a number of --tokens, not {flag(budget)}")
        if self.rule == "percent" and self.quota not in (None, "tokens"):
            raise UsageError("--quota cannot be combined with --rule percent: it takes the same share of every domain")
        if self.quota is not None and budget in ("top", "min_score"):
            raise UsageError(f"--quota cannot be combined with {flag(budget)}, which has no quotas by domain")
        if self.allow_small_pool and not counted:
            raise UsageError("--allow-small-pool needs a number of --tokens or --documents")

    def _check_sampling(self) -> None:
        if self.temperature is not None and not self.sample:
            raise UsageError("--temperature has no effect without --sample")
        if self.seed is not None and not self.sample and "random" not in self.column_names:
            raise UsageError("--seed has no effect without --sample or the column random")
        if self.sample and self.min_score is not None:
            raise UsageError("--sample cannot be combined with --min-score, which takes every document above it")

    @property
    def ranking(self) -> Expression:
        """What documents are ranked by."""
        return parse_expression(self.by)

    @property
    def column_names(self) -> list[str]:
        """The columns that documents are ranked and guarded by, each once."""
        return list(dict.fromkeys([*self.number_names, *(guard.column for guard in self.value_guards)]))

    @property
    def number_names(self) -> list[str]:
        """Those of them whose numbers are read."""
        guards = (guard for guard in self.guards if not isinstance(guard, ValueGuard))
        guarded = (guard.column for guard in guards if guard.column is not None)
        return list(dict.fromkeys([*self.ranking.names, *guarded]))

    @property
    def value_guards(self) -> list[ValueGuard]:
        """The guards of texts, dates, true and false."""
        return [guard for guard in self.guards if isinstance(guard, ValueGuard)]

    @property
    def caps(self) -> list[ValueCap]:
        """The caps on rows of one value, in their order."""
        return parse_caps(self.max_per)

    @property
    def draw_seed(self) -> int:
        """The seed of every draw."""
        return self.seed or 0

    @property
    def draw_temperature(self) -> float:
        """The temperature of --sample."""
        return self.temperature or DEFAULT_TEMPERATURE

    @property
    def guards(self) -> list[Guard | BandGuard | ValueGuard]:
        """The guards, in their order."""
        return parse_guards(self.within)

    @property
    def token_share(self) -> Fraction | None:
        """The share of the pool's tokens, where `tokens` is one."""
        return Fraction(str(parse_percent(self.tokens))) / 100 if isinstance(self.tokens, str) else None
