"""What `ladm prepare` and `ladm select` do: their flags with defaults, types, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladm.errors import UsageError
from ladm.settings.common import domain_key_setting, output_setting
from ladm.settings.fields import Settings, setting
from ladm.settings.quantities import parse_tokens

DOCUMENTS = "Where the parts of a document are"
CHOICE = "How documents are chosen"


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(Settings):
    """The settings of `ladm prepare`."""

    sources: tuple[str, ...] = setting((), "", metavar="SOURCE", required=True, positional=True)
    tokenizer: str = setting("", "Tokenizer: folder or Hub id of the model.", metavar="T", required=True)
    output: str = output_setting("Folder for the rows; the same command resumes.", metavar="ROWS")
    # The paper's length: documents of at least 32K tokens are cut to it, so that all scores are comparable.
    length: int = setting(32768, "Tokens of a row; shorter documents are dropped.", metavar="TOKENS", at_least=1)
    text_key: str = setting("text", "Column or key that holds a document's text.", section=DOCUMENTS, metavar="KEY")
    # The Pile's name for its domains, which the published rows have.
    domain_key: str = domain_key_setting("Column or key that holds its domain.", section=DOCUMENTS)
    id_key: str = setting("id", "Column or key that holds its name.", section=DOCUMENTS, metavar="KEY")
    domain: str | None = setting(
        None, "Domain of the documents that have none.", section=DOCUMENTS, metavar="NAME", unset="an error"
    )
    # Three values, because None must follow the tokenizer: a model was trained on what that does.
    bos: bool | None = setting(None, "Start every row with the tokenizer's BOS token.", unset="as the tokenizer does")
    # The paper cuts every document to its first 32K tokens; a book has more to give than that.
    windows: str = setting(
        "first", "Rows of a long document: its first window, at most N windows, or all.", metavar="first|N|all"
    )
    # Exact copies only: they would be chosen together, having equal scores.
    keep_duplicates: bool = setting(False, "Keep rows that have the ids of an earlier row.")
    # A corpus of thousands of files has a torn one now and then; many mean that something else is wrong.
    max_bad_files: int = setting(
        10, "Leave out up to N files that cannot be read to their end.", metavar="N", at_least=0
    )
    limit: int | None = setting(None, "Stop when N rows are written.", metavar="N", unset="no limit", at_least=1)

    @property
    def most_windows(self) -> int | None:
        """Rows of a document at most; None: as many as there are."""
        return {"first": 1, "all": None}[self.windows] if not self.windows.isdecimal() else int(self.windows)

    def check_together(self) -> None:
        if self.windows not in ("first", "all") and not (self.windows.isdecimal() and int(self.windows) > 0):
            raise UsageError(f"--windows {self.windows!r} is neither first, all nor a number of at least 1")


@dataclass(frozen=True, kw_only=True)
class SelectSettings(Settings):
    """The settings of `ladm select`."""

    run: str = setting("", "", metavar="RUN", required=True, positional=True)
    rows: str = setting("", "The rows that RUN scored.", metavar="ROWS", unset="their place at the time")
    output: str = output_setting("Folder for the subset.", metavar="SUBSET")
    # Required, although a share would be easier to give: results at one number of tokens can be compared.
    tokens: int = setting(0, "Token budget: 1B is 10^9; 500M, 250k.", metavar="N", required=True, parse=parse_tokens)
    # The published code takes a whole percentage of every domain, and exceeds the budget by up to 1 % of the pool.
    rule: Literal["exact", "percent"] = setting(
        "exact",
        "Fill the budget exactly, or take the same percentage of every domain as the published code does.",
        section=CHOICE,
    )
    quota: str = setting(
        "tokens",
        "Share of a domain: in proportion to its tokens or its documents, or weights from a YAML file.",
        section=CHOICE,
        metavar="tokens|documents|FILE",
    )
    domain_key: str = domain_key_setting(
        "Column, or key inside a column, that holds a row's domain; none: one domain for all.", section=CHOICE
    )
    # Windows of one book often score alike, and a subset of one book teaches little.
    max_per_document: int | None = setting(
        None,
        "Rows of one document at most.",
        section=CHOICE,
        metavar="K",
        unset="2 where `ladm prepare` cut windows",
        at_least=1,
    )
    # Without it a pool that is too small is an error, because taking everything is no selection.
    allow_small_pool: bool = setting(
        False, "Take everything when there are fewer tokens than the budget.", section=CHOICE
    )
    dry_run: bool = setting(False, "Show what would be selected; write nothing.")

    def check_together(self) -> None:
        if self.rule == "percent" and self.quota != "tokens":
            raise UsageError("--quota does not go with --rule percent, which takes the same share of every domain")
