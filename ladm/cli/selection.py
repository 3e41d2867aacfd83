"""The command that chooses among scored rows: select."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ladm.cli.display import selection_table
from ladm.cli.options import settings_command
from ladm.cli.terminal import configure_libraries, next_step, note, print_result, typed_words
from ladm.settings.common import DOMAIN_KEY
from ladm.settings.quantities import bare_share_warning
from ladm.settings.selection import SelectSettings


@settings_command(
    SelectSettings,
    short_help="Scores and a budget to a subset",
    examples=(
        "ladm select run --tokens 1B -o subset",
        "ladm select run --tokens 1B --format megatron -o s3://bucket/subset",
        "ladm select run --top 20% --within gzip_ratio:20%-80% --within copy_share:-95% -o subset",
        "ladm select run --top 20% --within rows.lang:en,de --within rows.date:2024-01-01.. -o subset",
        "ladm select run --documents 5000 --by 'rank(gain)+rank(robust)' -o subset",
        "ladm select run run2 --rows rows rows2 --tokens 500M --quota weights.yaml -o subset --dry-run",
    ),
)
def select(settings: SelectSettings) -> None:
    """Select the best documents of every domain of RUN for a budget of tokens or documents.

    Several RUNs of one model and method are ranked together; a row that is in several is taken once.
    """
    configure_libraries()
    from ladm.selection.subset import select as run_select

    warn_about_a_bare_share(settings)

    manifest = run_select(settings, echo=note)
    subset = [] if settings.dry_run else [f"subset: {settings.output}"]
    print_result(
        [*selection_table(manifest), *subset], lambda: manifest.as_json() | {"subset": settings.output or None}
    )
    # The page reads the manifest from a folder, not from an address.
    has_folder = not settings.dry_run and "://" not in settings.output
    if has_folder and len(settings.runs) == 1:
        # The page compares the subset with its own domains, and refuses one that was selected by others.
        domains = [] if settings.domain_key == DOMAIN_KEY else ["--domain-key", settings.domain_key]
        next_step("ladm", "report", settings.runs[0], "--subset", settings.output, *domains, *_ranked_by(settings))


def _ranked_by(settings: SelectSettings) -> list[str]:
    """The flag with which the page of a run without CDS ranks as the subset; a page with CDS explains the score."""
    from ladm.runs.folder import Run
    from ladm.settings.runs import page_ranking

    by = page_ranking(settings.by, Run.open(settings.runs[0]).identity.signals)
    return [] if by == "score" else ["--by", by]


def warn_about_a_bare_share(settings: Any) -> None:
    """Warn where `--top 0.1` may have been meant as a tenth."""
    words = typed_words()
    typed = [word.removeprefix("--top=") for word in words if word.startswith("--top=")]
    typed += [value for flag, value in pairwise(words) if flag == "--top"]
    if settings.top is not None and typed and (line := bare_share_warning(typed[-1], settings.top)) is not None:
        note(line)
