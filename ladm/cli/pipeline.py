"""The command `ladm run`."""

from __future__ import annotations

from typing import Any

from ladm.cli.display import selection_table
from ladm.cli.options import settings_command
from ladm.cli.selection import warn_about_a_bare_share
from ladm.cli.terminal import QUIET, configure_libraries, is_set, next_step, note, print_result
from ladm.progress_bars import JobBars
from ladm.settings.pipeline import RunSettings


def _load(kind: type, config: str | None, flags: dict[str, Any]) -> Any:
    # Imported here, because YAML and the profiles' numpy are not needed to show help.
    from ladm.settings.config_file import job_settings

    return job_settings(kind, config, flags)


def _note_but_missing_rows(line: str) -> None:
    """Print a line unless it says that not all rows were scored, which stands in the table too."""
    # Imported here, for the help not to wait for it.
    from ladm.runs.rows_of_run import ONLY_FIRST

    if not line.startswith(f"warning   {ONLY_FIRST}"):
        note(line)


@settings_command(
    RunSettings,
    short_help="Prepare, score, select and report",
    examples=(
        "ladm run corpus/*.jsonl.zst --model org/model --tokens 1B -o job",
        "ladm run corpus/*.jsonl.zst --model org/model --tokens 1B -o job --dry-run",
        "ladm run corpus/ --model org/model --tokens 500M --format megatron -o job",
        "ladm run --config job/job.yaml -o job2",
    ),
    loader=_load,
)
def run(settings: RunSettings) -> None:
    """Prepare, score, select and report in one command: the best documents of SOURCE for a budget of tokens, and why.

    SOURCE is what ladm prepare reads, or a data set of token ids, which is scored as it is. Writes
    FOLDER/{rows,scores,subset,report.html} and job.yaml, which repeats the job. You can stop it at any moment.
    """
    configure_libraries()
    warn_about_a_bare_share(settings)
    if settings.dry_run:
        from ladm.pipeline.forecast import forecast
        from ladm.pipeline.forecast_report import forecast_content, forecast_lines

        found = forecast(settings, echo=note)
        print_result(forecast_lines(found, settings), lambda: forecast_content(found))
        return
    from ladm.pipeline.run import run as run_job
    from ladm.pipeline.run import summary_lines

    result = run_job(settings, echo=_note_but_missing_rows, bars=JobBars(is_shown=not is_set(QUIET)))
    content = {"rows": result.rows, "scores": result.scores, "subset": result.subset}
    more = {"page": result.page, "seconds": result.seconds, "cpu_seconds": result.cpu_seconds}
    print_result(
        [*selection_table(result.manifest, others="a greater --limit adds others"), *summary_lines(result)],
        lambda: content | more | {"manifest": result.manifest.as_json()},
    )
    # The other formats are for other trainers: ladm train reads rows as save_to_disk writes them.
    # And it would train on every row that --keep-all has written.
    if result.manifest.format == "arrow" and not settings.keep_all:
        next_step("ladm", "train", "--model", "MODEL", "--rows", result.subset, "--tokens", "N", "-o", "trained")
