"""The signals that are requested and a run folder -> which the run computes itself, and which are added to it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ladm.errors import LadmError, UsageError
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE, SIGNALS
from ladm.settings.fields import settings_of
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import CDS, DEFAULT_SIGNALS, OPTIONS_OF, PROLONG, TEXT, parse_signals


@dataclass(frozen=True, kw_only=True)
class SignalChoice:
    """What a command has to compute. Every added signal is a run of its own in `RUN/signals`."""

    own: tuple[str, ...]
    """The signals of the run itself."""
    added: tuple[str, ...]
    only_adds: bool
    """The command says nothing about the run itself, which must be finished."""

    @property
    def runs_model(self) -> bool:
        """Does any signal that is computed run the model? The run may have one that the command does not name."""
        return any(signal != TEXT for signal in (*(() if self.only_adds else self.own), *self.added))

    def of_run(self, settings: ScoreSettings) -> ScoreSettings:
        """The settings of the run itself."""
        return replace(settings, signals=",".join(self.own))

    def of_added(self, settings: ScoreSettings, name: str) -> ScoreSettings:
        """The settings of the run that adds a signal."""
        # Without an output there is none either, rather than a folder of the working folder.
        output = settings.output and str(Path(settings.output) / SIGNALS / name)
        return replace(settings, signals=name, output=output, overwrite=False)


def started_run(settings: ScoreSettings) -> Run | None:
    """The run that a command goes on with; None for a new one, and where no output is given, as in a dry run."""
    folder = Path(settings.output)
    is_new = not settings.output or settings.overwrite or not (folder / IDENTITY_FILE).is_file()
    return None if is_new else Run.read(folder)


def choose_signals(settings: ScoreSettings) -> SignalChoice:
    """Decide by what is in the run folder.

    Raises LadmError for signals that cannot be added to that run, UsageError for an option without effect.
    """
    choice = _choose(settings)
    computed = (*choice.own, *choice.added)
    if choice.only_adds:
        computed = parse_signals(settings.signals) or ()
        for signal in (each for each in computed if each in choice.own):
            for option in _given_options(settings, signal):
                other_way = _other_way(settings, signal)
                raise UsageError(f"{option} has no effect: {settings.output} has {signal} already{other_way}")
    require_effect(settings, computed)
    return choice


def _other_way(settings: ScoreSettings, signal: str) -> str:
    """How a run gets what an option of a signal asks for, which it has already; empty where it cannot."""
    if signal != TEXT or settings.unigrams is None:
        return ""
    command = shlex.join(["ladm", "annotate", settings.output, "--unigrams", settings.unigrams])
    return f"; to compute it again with these counts, without a model: {command}"


def require_effect(settings: ScoreSettings, signals: tuple[str, ...]) -> None:
    """Raise UsageError for an option of a signal that is not one of `signals`, those that are computed."""
    for signal in (each for each in OPTIONS_OF if each not in signals):
        for option in _given_options(settings, signal):
            raise UsageError(f"{option} has no effect without {signal} among the signals ({', '.join(signals)})")


def _given_options(settings: ScoreSettings, signal: str) -> list[str]:
    """The flags of a signal that have a value other than the default."""
    fields = {field.name: field for field in settings_of(ScoreSettings)}
    options = [fields[name] for name in OPTIONS_OF.get(signal, ())]
    return [option.flag for option in options if getattr(settings, option.name) != option.default]


def _choose(settings: ScoreSettings) -> SignalChoice:
    requested = parse_signals(settings.signals)
    run = started_run(settings)
    if run is None:
        requested = requested or DEFAULT_SIGNALS
        own = _of_one_pass(requested)
        return SignalChoice(own=own, added=_without(requested, own), only_adds=False)
    has = tuple(run.identity.signals)
    if requested is None:
        return SignalChoice(own=has, added=(), only_adds=False)
    if not run.is_finished:
        own = requested if has == (PROLONG,) else _of_one_pass(requested)
        return SignalChoice(own=own, added=_without(requested, own), only_adds=False)
    added = _without(requested, has)
    if CDS in added:
        raise LadmError(f"{run.folder} was scored without cds, which cannot be added to a run; give another --output")
    if added and run.identity.part is not None:
        # They would be computed of all its rows, for days, for the sake of those that are there.
        raise LadmError(
            f"{run.folder} has {run.identity.rows_in_words}, those so far of another run; add {', '.join(added)} to "
            "that one once it is finished"
        )
    return SignalChoice(own=has, added=added, only_adds=CDS in has and CDS not in requested)


def _of_one_pass(requested: tuple[str, ...]) -> tuple[str, ...]:
    """The signals that a run computes itself: those that share a pass, or prolong alone."""
    # Every pair of segments is a pass of its own: nothing of it can be shared, and it takes many times as long.
    return _without(requested, (PROLONG,)) or requested


def _without(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)
