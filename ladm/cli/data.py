"""The command that makes rows: prepare."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ladm.cli.options import settings_command
from ladm.cli.terminal import AS_JSON, configure_libraries, is_set, next_step, note, preparing_bar, print_result
from ladm.errors import count_of
from ladm.settings.data import PrepareSettings

if TYPE_CHECKING:
    from ladm.corpus.preparation.prepare import PreparedRows


@settings_command(
    PrepareSettings,
    short_help="Documents to rows of token ids",
    examples=(
        "ladm prepare corpus/*.jsonl.gz --tokenizer org/model -o rows",
        "ladm prepare notes.txt 'src/**/*.py' --tokenizer model --length 4096 --domain mine -o rows",
        "ladm prepare org/corpus@v1 --split train --limit 10000 --domain web --tokenizer model -o rows",
    ),
)
def prepare(settings: PrepareSettings) -> None:
    """Turn documents into rows of exactly --length tokens, as `ladm score` reads them.

    SOURCE is a JSONL (.gz, .zst, .bz2, .xz), Parquet or text file, a folder or a glob of them, here or at an address
    such as s3://bucket/folder; a data set saved by save_to_disk; a Hub id, perhaps with @revision; or - for standard
    input.
    """
    configure_libraries()
    from ladm.corpus.preparation.prepare import positions_warning
    from ladm.corpus.preparation.prepare import prepare as run_prepare
    from ladm.corpus.preparation.report import domain_lines, preparation_lines

    prepared = run_prepare(settings, echo=note, progress=preparing_bar())
    lines = [
        *preparation_lines(prepared, length=settings.length, windows=settings.windows),
        *domain_lines(prepared, length=settings.length, other_domain=settings.other_domain),
        f"rows: {prepared.folder} ({count_of(prepared.rows, 'row')})",
    ]
    print_result(lines, lambda: _as_json(prepared))
    if not is_set(AS_JSON):
        # A model that cannot score these rows is not proposed.
        model = settings.tokenizer if positions_warning(settings) is None else "MODEL"
        # The released score says little where the model is not a calculator; all scores are stored with any of them.
        next_step("ladm", "score", prepared.folder, "--model", model, "--score", "robust", "-o", "run")


def _as_json(prepared: PreparedRows) -> dict[str, Any]:
    tokens = prepared.tokens
    return {
        "rows": prepared.folder,
        "count": prepared.rows,
        "documents": dict(prepared.counts),
        "tokens": tokens and tokens.as_json(),
        "copies": prepared.copies,
        "repeated_ids": prepared.repeated_ids and asdict(prepared.repeated_ids),
        "domains": prepared.domains and asdict(prepared.domains),
        "bad_files": prepared.bad_files,
        "dropped_file": prepared.dropped_file,
    }
