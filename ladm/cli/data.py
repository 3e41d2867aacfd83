"""The commands that make rows and choose among them: prepare, select. Imports no torch."""

from __future__ import annotations

from typing import Any

import click

from ladm.cli.display import PreparingBar, selection_table
from ladm.cli.flags import EXIT_CODES, Tokens, given, note, options_of, quieten_libraries
from ladm.settings.commands import PrepareSettings, SelectSettings

_prepare_option = options_of(PrepareSettings())
_select_option = options_of(SelectSettings())


@click.command(epilog=EXIT_CODES, short_help="Scores and a token budget to a subset")
@click.argument("run")
@_select_option("rows", str, "The data set that the run scored.", required=True)
@_select_option("tokens", Tokens(), "Budget: 1B is 10^9; 500M, 250k.", required=True, metavar="N")
@_select_option("output", str, "Folder for the subset.", required=True, metavar="SUBSET")
@_select_option("rule", click.Choice(["exact", "percent"]), "Fill the budget exactly, or as released.")
@_select_option("quota", str, "Share of a domain: by tokens, documents, or weights in a YAML file.", metavar="QUOTA")
@_select_option("domain_key", str, "Where a row's domain is, or none.", metavar="KEY")
@_select_option("allow_small_pool", bool, "Take everything when the pool is smaller than the budget.", is_flag=True)
@_select_option("dry_run", bool, "Show what would be taken, write nothing.", is_flag=True)
def select(**flags: Any) -> None:
    """Choose the best documents of every domain of RUN for a budget of tokens."""
    quieten_libraries()
    from ladm.selection.subset import select as run_select

    settings = SelectSettings(**given(flags))
    manifest = run_select(settings)
    for line in selection_table(manifest):
        click.echo(line)
    if not settings.dry_run:
        click.echo(f"subset: {settings.output}")


@click.command(epilog=EXIT_CODES, short_help="Documents to rows of token ids")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_prepare_option("tokenizer", str, "Folder or Hub id.", required=True, metavar="T")
@_prepare_option("output", str, "Folder for the rows; the same command resumes.", required=True, metavar="ROWS")
@_prepare_option("length", int, "Tokens of a row; shorter documents are dropped.")
@_prepare_option("text_key", str, "Where a document's text is.", metavar="KEY")
@_prepare_option("domain_key", str, "Where its domain is.", metavar="KEY")
@_prepare_option("domain", str, "Domain of documents that have none.", metavar="NAME")
@_prepare_option(
    "bos", bool, "Put the tokenizer's first token in front.  [default: as the tokenizer does]", flag="--bos/--no-bos"
)
@_prepare_option("limit", int, "Stop once N rows are kept.", metavar="N")
def prepare(**flags: Any) -> None:
    """Turn documents into rows of exactly --length tokens, as `ladm score` reads them.

    SOURCE is a JSONL (.gz, .zst), Parquet or text file, a folder of them, a data set saved by save_to_disk, or a
    Hub id.
    """
    quieten_libraries()
    from ladm.corpus.prepare import REASONS
    from ladm.corpus.prepare import prepare as run_prepare

    settings = PrepareSettings(**given(flags))
    record = run_prepare(settings, echo=note, progress=PreparingBar())
    click.echo(f"{'kept':<10} {record['counts'].get('kept', 0):>12,}  documents of at least {settings.length:,} tokens")
    for reason, meaning in REASONS.items():
        if record["counts"].get(reason):
            click.echo(f"{reason:<10} {record['counts'][reason]:>12,}  dropped: {meaning}")
    click.echo(f"rows: {settings.output} ({record['rows']:,} rows)")
