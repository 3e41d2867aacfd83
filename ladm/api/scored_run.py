"""`ladm.ScoredRun`: a run folder -> what the commands that take a run do with it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ladm.api.keywords import AnyPath, parse_keywords, spell_path
from ladm.api.quiet import echo_to, quiet_libraries, warn
from ladm.api.run_reader import RunReader
from ladm.api.subset import Subset

if TYPE_CHECKING:
    from typing import Unpack

    from ladm.api.run_flags import AnnotateFlags, CompareFlags, InspectFlags, ReportFlags, RescoreFlags, TopFlags
    from ladm.comparison.result import Comparison
    from ladm.comparison.top import TopDocument


@dataclass(frozen=True)
class ScoredRun(RunReader):
    """A run folder, as `ladm.score` and `ladm.open_run` return it. It can be given to whatever takes a path."""

    def top(self, number: int | None = None, **settings: Unpack[TopFlags]) -> list[TopDocument]:
        """The documents with the highest scores, as `ladm top` lists them: value, domain, id, and how the text begins.

        `number`: how many, by default 10. `settings`: the flags of the command, such as `by="rank(gain)"`,
        `worst=True` or `domain="web"`. Why there are no texts is a LadmWarning.
        Raises LadmError for an unfinished run, and for a column or a domain that does not exist.
        """
        from ladm.settings.comparison import TopSettings

        given = parse_keywords(TopSettings, "top", {**settings, "number": number}, without=("run",))
        wanted = TopSettings(run=str(self.folder), **given)
        with quiet_libraries():
            from ladm.comparison.top import top_documents

            found = top_documents(wanted)
        for line in (found.note, found.partial):
            if line is not None:
                warn(line)
        return found.documents

    def compare(
        self, other: AnyPath | None = None, *, output: AnyPath | None = None, **settings: Unpack[CompareFlags]
    ) -> Comparison:
        """How columns of the run, or of it and an `other` one of the same rows, agree, as `ladm compare` finds it.

        `settings`: the flags of the command, such as `columns=["robust", "gzip_ratio"]` or `kinds="kind"`; `output`:
        a page for a browser, which is also written. Raises LadmError for an unfinished run, for a run of other rows,
        and for a column that does not exist.
        """
        from ladm.settings.comparison import CompareSettings

        given = parse_keywords(CompareSettings, "compare", settings, without=("runs", "output", "all_pairs"))
        runs = (str(self.folder), *([] if other is None else [spell_path(other, "other")]))
        page = None if output is None else spell_path(output, "output")
        wanted = CompareSettings(runs=runs, output=page, **given)
        with quiet_libraries():
            from ladm.comparison.compare import compare
            from ladm.comparison.page import PAGE_MARK, write_page
            from ladm.storage.files import require_place

            require_place(page, mark=PAGE_MARK)
            found = compare(wanted)
            if page is not None:
                write_page(found, Path(page))
        for line in found.partial:
            warn(line)
        return found

    def rescore(self, *, output: AnyPath, **settings: Unpack[RescoreFlags]) -> ScoredRun:
        """Combine the stored layers into another score, as `ladm rescore` does, in the folder `output`; no model runs.

        `settings`: the flags of the command, such as `score="robust"`, `reduce="median"` or `layers="0-10"`; with
        `so_far=True`, and no other, the rows so far of a run that is not finished, with its score.
        Raises LadmError for an unfinished run without `so_far`, and for a score that needs what the run did not store.
        """
        from ladm.settings.runs import RescoreSettings

        given = parse_keywords(RescoreSettings, "rescore", settings, without=("run", "output"))
        wanted = RescoreSettings(run=str(self.folder), output=spell_path(output, "output"), **given)
        with quiet_libraries():
            from ladm.scoring.rescore import rescore

            rescore(wanted, echo=echo_to(progress=False))
        return ScoredRun(Path(wanted.output))

    def annotate(self, *, progress: bool = False, **settings: Unpack[AnnotateFlags]) -> ScoredRun:
        """Add statistics of every row's text as columns, as `ladm annotate` does; the same call resumes.

        `settings`: the flags of the command. Raises LadmError for an unfinished run, and for rows that are not its.
        """
        from ladm.settings.runs import AnnotateSettings

        given = parse_keywords(AnnotateSettings, "annotate", settings, without=("run",))
        with quiet_libraries():
            from ladm.annotation.annotate import annotate
            from ladm.progress_bars import ScoringBar

            bar = ScoringBar("annotating") if progress else None
            annotate(AnnotateSettings(run=str(self.folder), **given), echo=echo_to(progress=progress), progress=bar)
        return self

    def inspect(self, *, progress: bool = False, **settings: Unpack[InspectFlags]) -> list[Path]:
        """Find out which pairs of spans some scores come from, as `ladm inspect` does; a file for each document.

        `settings`: the flags of the command, such as `top=3` or `id="4711"`. The page of `report` shows the result.
        Raises LadmError for an unfinished run, a document without a score, and rows or a model that are not the run's.
        """
        from ladm.settings.runs import InspectSettings

        given = parse_keywords(InspectSettings, "inspect", settings, without=("run",))
        files: list[Path] = []
        with quiet_libraries():
            from ladm.explain.inspect_run import inspect
            from ladm.progress import NoProgress
            from ladm.progress_bars import ScoringBar

            inspect(
                InspectSettings(run=str(self.folder), **given), echo=echo_to(progress=progress),
                on_document=lambda _, path: files.append(path),
                progress=ScoringBar("inspecting") if progress else NoProgress(),
            )  # fmt: skip
        return files

    def report(
        self, *, subset: AnyPath | None = None, output: AnyPath | None = None, **settings: Unpack[ReportFlags]
    ) -> Path:
        """Write the page for a browser, as `ladm report` does, by default `report.html` in the run's folder.

        `subset`: what `ladm.select` made of this run; the page marks its documents, and has its domains. Raises
        LadmError for an unfinished run, a subset of another run, and a file at `output` that is no such page.
        """
        from ladm.settings.runs import ReportSettings

        places = {"subset": subset, "output": output}
        given = parse_keywords(ReportSettings, "report", settings, without=("run", *places))
        given |= {name: spell_path(path, name) for name, path in places.items() if path is not None}
        if isinstance(subset, Subset):
            given = {"domain_key": subset.manifest.domain_key} | given
        with quiet_libraries():
            from ladm.report.page import write_report

            if isinstance(subset, Subset):
                subset.require_written()

            return write_report(ReportSettings(run=str(self.folder), **given), echo=echo_to(progress=False))
