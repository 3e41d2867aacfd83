"""Options of a signal that is not computed are refused, and those of one that a run has or gets are accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ladm as front
from ladm.errors import UsageError
from ladm.runs.folder import Run
from ladm.settings.profiles import Profile, profile_text
from support.commands import Command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--context-gain", "blocks"],
            "--context-gain has no effect without context-gain among the signals (cds, text)",
        ),
        (["--prolong-pairs", "3"], "--prolong-pairs has no effect without prolong among the signals (cds, text)"),
        (
            ["--signals", "cds,longattn", "--unigrams", "absent.npy"],
            "--unigrams has no effect without text among the signals (cds, longattn)",
        ),
        *(
            (["--signals", "text", flag, value], f"{flag} has no effect without cds among the signals (text)")
            for flag, value in (
                ("--score", "robust"), ("--variant", "paper"), ("--ablation", "no-std"),
                ("--reduce", "median"), ("--layers", "1-2"), ("--record", "heads"),
            )
        ),
    ],
)  # fmt: skip
def test_options_of_signals_that_are_not_computed_are_refused(
    ladm: Command, rows: str, small: Any, tmp_path: Path, flags: list[str], message: str
) -> None:
    config = tmp_path / "score.yaml"
    config.write_text("".join(f"{flags[k][2:]}: {flags[k + 1]}\n" for k in range(0, len(flags), 2)))
    output = tmp_path / "run"
    for given in (flags, ["--config", str(config)], [*flags, "--dry-run"]):
        result = ladm("score", rows, *small, *given, "--output", output)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"ladm: {message}")
    job = ladm("run", rows, *small, *flags, "--documents", "1", "--output", output)
    assert (job.exit_code, job.stderr) == (2, f"ladm: {message}\n")
    words: dict[str, Any] = {flags[k][2:].replace("-", "_"): flags[k + 1] for k in range(0, len(flags), 2)}
    words |= {"prolong_pairs": 3} if "prolong_pairs" in words else {}
    with pytest.raises(UsageError) as caught:
        front.score(rows, model=small[1], output=output, **words)
    assert str(caught.value) == message
    assert not output.exists()


def test_a_profile_without_cds_is_refused(ladm: Command, rows: str, small: Any, run: Path, tmp_path: Path) -> None:
    of_run = Run.read(run).identity
    made = Profile(
        model=of_run.content["model"], method=of_run.method, length_tokens=512, reduction=of_run.reduction
    )  # fmt: skip
    profile = tmp_path / "p.yaml"
    profile.write_text(profile_text(made))
    for flag in ("--profile", "--score"):
        result = ladm("score", rows, *small, "--signals", "longattn", flag, profile, "--output", run)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            2, "ladm: --profile has no effect without cds among the signals (longattn)"
        )  # fmt: skip


def test_a_scorer_in_memory_refuses_options_without_effect(golden_lm: Path) -> None:
    with pytest.raises(UsageError) as caught:
        front.Scorer(golden_lm, prolong_pairs=3, device="cpu")
    assert str(caught.value) == "--prolong-pairs has no effect without prolong among the signals (cds)"


def test_options_of_signals_that_a_run_has_or_gets_are_accepted(
    ladm: Command, rows: str, small: Any, run: Path, tmp_path: Path
) -> None:
    command = ("score", rows, *small, "--span-tokens", "16", "--output")
    # The run's own signals, not the default ones, are those of a command without --signals.
    gained = tmp_path / "gained"
    flags = ("--context-gain", "blocks")
    assert ladm(*command, gained, "--signals", "cds,context-gain", *flags).exit_code == 0
    assert ladm(*command, gained, *flags).exit_code == 0
    assert ladm(*command, run, "--signals", "prolong", "--prolong-pairs", "2").exit_code == 0
    assert ladm(*command, run, "--signals", "context-gain", *flags).exit_code == 0
    own = ladm(*command, run, "--signals", "context-gain", "--reduce", "median")
    assert (own.exit_code, own.stderr.splitlines()[-1]) == (
        2, "ladm: --reduce has no effect without cds among the signals (context-gain)"
    )  # fmt: skip
    stored = ladm(*command, gained, "--signals", "context-gain", "--context-gain", "blocks")
    assert (stored.exit_code, stored.stderr.splitlines()[-1]) == (
        2, f"ladm: --context-gain has no effect: {gained} has context-gain already"
    )  # fmt: skip
