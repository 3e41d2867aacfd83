"""What `ladm prepare` does: its flags with defaults, types, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.errors import UsageError
from ladm.settings.common import NO_DOMAINS, ONE_DOMAIN, domain_key_setting, output_setting
from ladm.settings.fields import Settings, setting
from ladm.settings.quantities import parse_whole

DOCUMENTS = "Where the parts of a document are"
ALL_WINDOWS = "all"
"""As `--windows`."""
NO_TOKEN_COUNT = "none"
"""As a `--token-count-key`: read every document."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(Settings):
    """The settings of `ladm prepare`."""

    sources: tuple[str, ...] = setting((), "", metavar="SOURCE", required=True, positional=True)
    tokenizer: str = setting("", "Tokenizer: folder or Hub id of the model.", metavar="T", required=True)
    output: str = output_setting(
        "Folder for the rows; the same command resumes.", metavar="ROWS", holds_rows=True
    )  # fmt: skip
    # The paper's length: documents of at least 32K tokens are cut to it, so that all scores are comparable.
    length: int = setting(32768, "Tokens of a row; shorter documents are dropped.", metavar="TOKENS", at_least=1)
    text_key: str = setting("text", "Column or key that holds a document's text.", section=DOCUMENTS, metavar="KEY")
    # The Pile's name for its domains, which the published rows have.
    domain_key: str = domain_key_setting(
        "Column or key that holds its domain, by default also the column domain; none: one domain for all.",
        section=DOCUMENTS,
    )
    id_key: str = setting("id", "Column or key that holds its id.", section=DOCUMENTS, metavar="KEY")
    domain: str | None = setting(
        None, "Domain for documents that have none.", section=DOCUMENTS, metavar="NAME", unset="an error"
    )
    hub_config: str | None = setting(
        None, "Configuration of a data set on the Hub.", section=DOCUMENTS, metavar="NAME", unset="its default"
    )
    split: str | None = setting(None, "Split of a data set.", section=DOCUMENTS, metavar="NAME", unset="train")
    # The published corpora count with GPT-2's tokenizer, which needs a little more tokens than those of today.
    token_count_key: str = setting(
        "token_count",
        "Parquet column of token counts: the texts of documents below --length are not read; none: read all.",
        section=DOCUMENTS,
        metavar="KEY",
    )
    # Three values, because None must follow the tokenizer: a model was trained on what that does.
    bos: bool | None = setting(None, "Start every row with the tokenizer's BOS token.", unset="as the tokenizer does")
    # The paper cuts every document to its first 32K tokens; a book has more to give than that.
    windows: str = setting(
        "first",
        "Rows of a long document: its first window, at most N windows, or all.",
        metavar="first|N|all",
        digits=True,
    )
    # Exact copies only: they would be chosen together, having equal scores.
    keep_duplicates: bool = setting(False, "Keep rows that repeat the token ids of an earlier row.")
    # A corpus of thousands of files has a torn one now and then; many mean that something else is wrong.
    max_bad_files: int = setting(10, "Skip up to N files that cannot be read completely.", metavar="N", at_least=0)
    num_proc: int | None = setting(None, "Threads of the tokenizer.", metavar="N", unset="all cores", at_least=1)
    limit: int | None = setting(None, "Stop after N rows.", metavar="N", unset="no limit", at_least=1)

    @property
    def most_windows(self) -> int | None:
        """Rows of a document at most; None: as many as there are."""
        return {"first": 1, ALL_WINDOWS: None}.get(self.windows, parse_whole(self.windows))

    @property
    def other_domain(self) -> str | None:
        """The domain of documents without one; None: they are an error."""
        return ONE_DOMAIN if self.domain is None and self.domain_key == NO_DOMAINS else self.domain

    def check_together(self) -> None:
        if self.windows not in ("first", ALL_WINDOWS) and not parse_whole(self.windows):
            raise UsageError(f"--windows {self.windows!r} is neither first, all nor a number of at least 1")
