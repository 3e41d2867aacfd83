"""The options of `ladm select`: budgets, order, guards, samples, several runs, and the errors of each."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result

from ladm.errors import LadmError, UsageError
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from ladm.selection.budget import select_documents, take_above
from ladm.selection.quota_weights import read_quota
from ladm.selection.sampling import gumbel_keys
from ladm.settings.quantities import parse_token_budget
from ladm.settings.selection import SelectSettings
from support.files import read_lines
from support.models import SMALL
from support.rows import topical_rows
from support.runs import add_signal
from support.subsets import selected, write_profile

Command = Callable[..., Result]


# Budgets


def test_documents_are_shared_out_and_what_a_small_domain_leaves_goes_to_the_others() -> None:
    from support.domains import pool, taken

    documents = [("a", 9.0, 5), ("b", 3.0, 1), ("b", 2.0, 1), ("b", 1.0, 1), ("c", 7.0, 1), ("c", 6.0, 9)]
    domains = pool(*documents)
    select_documents(domains, budget_documents=5, shares={"a": 3, "b": 1, "c": 1}, allow_small_pool=False)
    # Quotas 3, 1, 1; a has one document, and its other two go to b and c by name.
    assert taken(domains) == {"a": [0], "b": [1, 2], "c": [4, 5]}
    assert [domain.quota_documents for domain in domains.values()] == [3, 1, 1]
    with pytest.raises(LadmError, match="the pool has 6 documents, fewer than the budget of 7; give a smaller"):
        select_documents(domains, budget_documents=7, shares={"a": 1, "b": 1, "c": 1}, allow_small_pool=False)
    select_documents(domains, budget_documents=7, shares={"a": 1, "b": 1, "c": 1}, allow_small_pool=True)
    assert sum(map(len, taken(domains).values())) == 6
    # Quotas of 4 each; a leaves 3, b has one more and is then used up, and c gets the other two.
    domains = pool(("a", 1.0, 1), *(("b", 1.0, 1) for _ in range(5)), *(("c", 1.0, 1) for _ in range(9)))
    select_documents(domains, budget_documents=12, shares={"a": 1, "b": 1, "c": 1}, allow_small_pool=False)
    assert [len(rows) for rows in taken(domains).values()] == [1, 5, 6]
    domains = pool(*documents)
    take_above(domains, least=3.0)
    assert taken(domains) == {"a": [0], "b": [1], "c": [4, 5]}


def test_every_budget(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored
    scores = read_columns(Run.read(run), ["score"])
    ranked = scores["position"].to_pylist()
    even, odd = ([p for p in ranked if p % 2 == k] for k in (0, 1))
    found = selected(ladm, run, "--documents", "3")
    assert found["positions"] == sorted([*even[:2], odd[0]])
    assert (found["budget_documents"], found["budget_tokens"], found["quota"]) == (3, None, "documents")
    assert found["domains"]["domain 0"]["quota_documents"] == 2
    assert found["table"][0].split()[3:5] == ["quota", "documents"]
    assert found["table"][-2].split()[:4] == ["not", "selectable", "without", "a"]
    assert selected(ladm, run, "--top", "43%")["positions"] == found["positions"]
    tenth = "warning   --top 0.1 is 0.1 %; if 10 % is meant, write 10%\n"
    quarter = "warning   --top .25 is 0.25 %; if 25 % is meant, write 25%\n"
    for words, said in ((("--top", ".25"), quarter), (("--top=0.1",), tenth), (("--top", "0.1%"), "")):
        done = ladm("select", run, *words, "--dry-run")
        assert (done.exit_code, done.stderr) == (0, said)
    least = scores["score"].to_pylist()[3]
    found = selected(ladm, run, "--min-score", str(least))
    assert (found["positions"], found["min_score"]) == (sorted(ranked[:4]), least)
    assert (found["quota"], found["budget_tokens"]) == (None, None)
    half = selected(ladm, run, "--tokens", "50%")
    # To the last digit: of a corpus of 10^12 tokens the seventh is 10,000 of them.
    assert parse_token_budget("33.3333333 %") == "33.3333333%"
    assert half["budget_tokens"] == 3544 // 2
    assert half["positions"] == selected(ladm, run, "--tokens", "1772")["positions"]
    few = selected(ladm, run, "--documents", "3", "--quota", "tokens")
    assert few["domains"]["domain 0"]["quota_documents"] == 2
    assert selected(ladm, run, "--documents", "100", "--allow-small-pool")["taken_documents"] == 7


# Order, guards, samples


def test_ranking_by_an_expression(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored
    gain = {0: 0.1, 1: 0.9, 2: 0.3, 4: 0.2, 6: 0.4, 7: 0.5}
    add_signal(Run.read(run), "context-gain", {"gain": gain})
    found = selected(ladm, run, "--documents", "2", "--by", "gain", "--domain-key", "none")
    assert (found["positions"], found["by"], found["without_value"]) == ([1, 7], "gain", 1)
    assert "not selectable without a value of gain: 1" in found["table"]
    assert found["domains"]["all"]["lowest_score_taken"] == 0.5
    assert selected(ladm, run, "--documents", "2", "--by", "-gain", "--domain-key", "none")["positions"] == [0, 4]
    found = selected(ladm, run, "--documents", "1", "--by", "rank(length) + 0 * gain", "--domain-key", "none")
    assert found["positions"] == [4]
    # Equal values are ranked by score.
    best = read_columns(Run.read(run), ["score"])["position"].to_pylist()[:3]
    assert selected(ladm, run, "--documents", "3", "--by", "0 * score", "--domain-key", "none")["positions"] == sorted(
        best
    )


def test_weights_are_of_domains_as_they_are_spelled(tmp_path: Path) -> None:
    file = tmp_path / "weights.yaml"
    # Norwegian, a version and a number with a zero in front: to YAML False, 1.1 and 8.
    file.write_text("no: 2\n1.10: 1\n010: 0.5\n2020: 1\n")
    assert read_quota(str(file)).weights == {"no": 2, "1.10": 1, "010": 0.5, "2020": 1}
    file.write_text("<<: &b {en: 1, de: 1}\nde: 3\n")
    assert read_quota(str(file)).weights == {"en": 1, "de": 3}
    file.write_text("web: 2\nbooks: 1\nweb: 1\n")
    with pytest.raises(UsageError) as error:
        read_quota(str(file))
    assert str(error.value) == f"--quota {file} is not YAML: line 3 has the key web a second time"


def test_guards_are_counted_by_domain(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored
    weight = {0: 0.1, 1: 0.2, 2: 0.3, 4: 0.4, 5: 0.5, 6: 0.6}
    add_signal(Run.read(run), "other", {"weight": weight})
    flags = ("--within", "weight:20%-0.5", "--within", "length:-500")
    found = selected(ladm, run, "--top", "100%", *flags)
    # The 20 % quantile of six values is the second; row 7 has no value, and row 4 has 700 tokens.
    assert found["positions"] == [1, 2, 5]
    assert found["guards"] == [
        {"given": "weight:20%-0.5", "column": "weight", "low": pytest.approx(0.2), "high": 0.5,
         "dropped": {"domain 0": 2}, "without_value": 1},
        {"given": "length:-500", "column": "length", "low": None, "high": 500.0, "dropped": {"domain 0": 1},
         "without_value": 0},
    ]  # fmt: skip
    assert found["pool_documents"] == 3
    assert found["table"][5:8] == [
        "dropped by --within weight:20%-0.5: 2, keeping weight from 0.2 to 0.5 (domain 0 2)",
        "dropped without a value of weight: 1",
        "dropped by --within length:-500: 1, keeping length of at most 500 (domain 0 1)",
    ]
    result = ladm("select", run, "--top", "9%", "--within", "length:900-", "--output", run.parent / "none")
    assert (result.exit_code, result.stderr) == (
        1, "ladm: --within length:900- leaves no document; give it wider limits\n",
    )  # fmt: skip
    result = ladm("select", run, "--top", "9%", "--within", "weight:10-100%", "--output", run.parent / "none")
    assert (result.exit_code, result.stderr) == (
        1, "ladm: --within weight:10-100% leaves no document; its lower limit, 10, is above its upper one, 0.6; "
        "quantiles have a % at both ends, such as 10%-90%\n",
    )  # fmt: skip


def test_limits_of_a_column_of_float32_include_what_is_shown_with_their_digits(
    ladm: Command, scored: tuple[str, Path]
) -> None:
    _, run = scored
    # As float32, 0.7 is less than 0.7, and 0.1 more than 0.1.
    light = {0: 0.1, 1: 0.7, 2: 0.3, 4: 0.3, 5: 0.3, 6: 0.9, 7: 0.05}
    add_signal(Run.read(run), "narrow", {"light": light}, kind=pa.float32())
    add_signal(Run.read(run), "wide", {"weight": {k: float(np.float32(x)) for k, x in light.items()}})
    everything = ("--documents", "100", "--allow-small-pool")
    low = selected(ladm, run, *everything, "--within", "light:0.7-")
    assert low["positions"] == [1, 6]
    assert (low["guards"][0]["low"], low["guards"][0]["dropped"]) == (0.7, {"domain 0": 3, "domain 1": 2})
    assert selected(ladm, run, *everything, "--within", "light:-0.1")["positions"] == [0, 7]
    assert selected(ladm, run, "--min-score", "0.7", "--by", "light")["positions"] == [1, 6]
    # The same numbers in a column of float64, and in an expression, are compared as they are.
    assert selected(ladm, run, *everything, "--within", "weight:0.7-")["positions"] == [6]
    assert selected(ladm, run, *everything, "--within", "weight:-0.1")["positions"] == [7]
    assert selected(ladm, run, "--min-score", "0.7", "--by", "1 * light")["positions"] == [6]
    # Of seven values the quantiles at 50 % and at a sixth are values themselves.
    middle = selected(ladm, run, *everything, "--within", f"light:{100 / 6}%-50%")
    assert middle["positions"] == [0, 2, 4, 5]
    # This one is above 0.3 by less than float32 can hold, and so excludes 0.3.
    assert selected(ladm, run, *everything, "--within", "light:66.6666666667%-")["positions"] == [1, 6]
    # A column of the run itself, with a number as a person reads it in the results.
    shown = {line["index"]: line["unigram_entropy"] for line in read_lines(run / "sorted_by_score.jsonl")}
    for value in set(shown.values()):
        found = selected(ladm, run, *everything, "--within", f"unigram_entropy:{value}-{value}")
        assert found["positions"] == sorted(index for index in shown if shown[index] == value)


def test_the_band_of_a_profile(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    table = read_columns(Run.read(run), ["score", "copy_share"])
    scores, shares = table["score"].to_pylist(), table["copy_share"].to_pylist()
    low, high, most = sorted(scores)[1], sorted(scores)[5], sorted(shares)[5]
    band = {"score": (0.0, low, high), "copy_share": (0.0, 0.0, most), "length": (0.0, 1.0, 500.0)}
    profile = write_profile(run, tmp_path / "profile.yaml", band)
    found = selected(ladm, run, "--top", "100%", "--within", "profile", "--profile", profile)
    rows = zip(table["position"].to_pylist(), scores, shares, strict=True)
    expected = [position for position, score, share in rows if low <= score <= high and share <= most]
    assert found["positions"] == sorted(expected)
    assert [guard["column"] for guard in found["guards"]] == ["score", "copy_share"]
    found = selected(ladm, run, "--top", "100%", "--within", "length:profile", "--profile", profile)
    assert found["positions"] == [1, 2, 5, 7]
    # A run that was made with the profile remembers it.
    assert ladm("rescore", run, "--score", profile, "--output", tmp_path / "run2").exit_code == 0
    again = selected(ladm, tmp_path / "run2", "--top", "100%", "--within", "profile")
    assert again["positions"] == sorted(expected)


def test_a_profile_of_another_length_is_warned_of(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    profile = write_profile(run, tmp_path / "profile.yaml", {"score": (0.0, 0.0, 9.0), "length": (0.0, 0.0, 999.0)})
    warning = (
        f"warning   5 of 7 rows have 400 to 700 tokens; profile {profile} was calibrated at 512 and was not "
        "evaluated at other lengths\n"
    )
    same = tmp_path / "run2"
    assert warning in ladm("rescore", run, "--score", profile, "--output", same).stderr
    command = ("--top", "9%", "--dry-run")
    within = ("--profile", profile, "--within")
    # By the score of a run that was made with the profile, or by its band, and not by any other column.
    for folder, flags, expected in (
        (same, (), warning),
        (same, ("--by", "rank(score) + length"), warning),
        (same, ("--by", "length", "--within", "score:0-"), warning),
        (same, ("--by", "length"), ""),
        (run, (*within, "profile"), warning),
        (run, (*within, "length:profile", "--by", "length"), warning),
        (run, (), ""),
    ):
        result = ladm("select", folder, *command, *flags)
        assert (result.exit_code, result.stderr) == (0, expected)
    equal = write_profile(run, tmp_path / "equal.yaml", {"score": (0.0, 0.0, 9.0)}, length_tokens=90)
    assert "7 of 7 rows have" in ladm("select", run, *command, "--profile", equal, *within[2:], "profile").stderr
    # To rank by the scores of a run needs no profile.
    profile.unlink()
    result = ladm("select", same, *command)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_band_that_does_not_fit(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    band = {"score": (0.0, 1.0, 2.0)}
    median = replace(Run.read(run).identity.reduction, how="median")
    other = write_profile(run, tmp_path / "median.yaml", band, reduction=median)
    signed = replace(Run.read(run).identity.reduction, how="signed", layers=(0,), heads=((0, 0),), weights=(1.0,))
    heads = write_profile(run, tmp_path / "heads.yaml", band, reduction=signed)
    model = write_profile(run, tmp_path / "model.yaml", band, model={"type": "llama", "sha256": {"a": "b"}})
    bare = write_profile(run, tmp_path / "bare.yaml", {})
    whole = write_profile(run, tmp_path / "whole.yaml", band)
    method = replace(Run.read(run).identity.method, span_tokens=32)
    spans = write_profile(run, tmp_path / "spans.yaml", band | {"robust": (0.0, 1.0, 2.0)}, method=method)
    for flags, code, message in (
        ((), 2, "--within profile needs --profile, because RUN was not scored with one"),
        (("--profile", bare), 2, f"--profile {bare} has no band; calibrate again with this version of ladm to "
         "write one"),
        (("--profile", tmp_path / "nowhere"), 2, f"profile {tmp_path}/nowhere: No such file or directory"),
        (("--profile", model), 1, f"{model} was calibrated for another model than the one of {run}"),
        (("--profile", other), 1,
         f"the band of {other} is for the score of that profile, which {run} does not have; rescore first: ladm "
         f"rescore {run} --score {other} -o RUN2"),
        (("--profile", heads), 1,
         f"the band of {heads} is for the score of that profile, which {run} does not have; score the rows again with "
         f"--profile {heads}, which stores what it takes"),
        *((("--profile", spans, "--by", column), 1,
           f"{spans} was calibrated with --span-tokens 32, and {run} was scored with 16, so that its band of {column} "
           "has another scale") for column in ("score", "robust")),
        (("--profile", whole, "--by", "score + 1"), 2,
         "--within profile needs --by to be a column, and score + 1 is an expression; give COLUMN:profile"),
        (("--profile", whole, "--by", "length"), 2,
         f"--within profile: the band of {whole} has no length (it has score)"),
    ):  # fmt: skip
        result = ladm("select", run, "--top", "9%", "--output", tmp_path / "none", "--within", "profile", *flags)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")


def test_a_band_over_other_layers(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    band = dict.fromkeys(("score", "copy_share", "robust", "length"), (0.0, 0.0, 9e9))
    same = write_profile(run, tmp_path / "same.yaml", band, band_layers=(0, 1, 2))
    other = write_profile(run, tmp_path / "other.yaml", band, band_layers=(0, 1, 2, 3))
    command = ("select", run, "--top", "9%", "--dry-run", "--within")
    for guard in ("profile", "robust:profile", "score:profile", "length:profile"):
        assert ladm(*command, guard, "--profile", same).exit_code == 0
    for guard, column in (("profile", "copy_share"), ("robust:profile", "robust")):
        result = ladm(*command, guard, "--profile", other)
        assert (result.exit_code, result.stderr) == (
            1,
            f"ladm: the band of {other} has {column} over layers 0-3, and {run} has layers 0-2; score with --layers "
            "0-3 and rescore with the profile, or guard columns that are not over layers, such as --within "
            "score:profile\n",
        )
    for guard in ("score:profile", "length:profile"):
        assert ladm(*command, guard, "--profile", other).exit_code == 0


def test_the_band_over_the_layers_of_a_profile(
    score_once: Any, ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    """A run that is made with a profile stores its layers alone; one that is rescored by it keeps all."""
    rows, run = scored
    few = replace(Run.read(run).identity.reduction, layers=(1, 2))
    band = {"score": (0.0, 0.0, 9.0), "copy_share": (0.0, 0.0, 0.9)}
    profile = write_profile(
        run, tmp_path / "p.yaml", band, reduction=few, band_layers=(0, 1, 2),
        score_layers_band={"copy_share": (0.0, 0.0, 0.8)},
    )  # fmt: skip
    assert ladm("score", rows, *SMALL, "--profile", profile, "--output", tmp_path / "few").exit_code == 0
    assert ladm("rescore", run, "--profile", profile, "--output", tmp_path / "all").exit_code == 0
    score_once(rows, "--layers", "2", output=tmp_path / "other")
    flags = ("--top", "100%", "--within", "profile")
    for folder, limit in ((tmp_path / "few", 0.8), (tmp_path / "all", 0.9)):
        guards = selected(ladm, folder, *flags)["guards"]
        assert [(guard["column"], guard["high"]) for guard in guards] == [("score", 9.0), ("copy_share", limit)]
    result = ladm("select", tmp_path / "other", "--dry-run", "--top", "9%", "--within", "copy_share:profile",
                  "--profile", profile)  # fmt: skip
    assert (result.exit_code, "has copy_share over layers 0-2, and" in result.stderr) == (1, True)


def test_the_median_of_an_ablation_has_no_band(
    score_once: Any, ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    rows, run = scored
    profile = write_profile(run, tmp_path / "p.yaml", {"median": (0.0, 0.0, 9.0), "robust": (0.0, 0.0, 9.0)})
    other = tmp_path / "no-std"
    score_once(rows, "--ablation", "no-std", output=other)
    command = ("--top", "9%", "--within", "profile", "--profile", profile, "--dry-run", "--by")
    assert ladm("select", run, *command, "median").exit_code == 0
    assert ladm("select", other, *command, "robust").exit_code == 0
    result = ladm("select", other, *command, "median")
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {profile} was calibrated with --ablation none, and {other} was scored with no-std, so that its band of "
        "median has another scale\n",
    )


def test_half_of_a_character_in_a_domain(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """The JSON of a text may spell one, and no file can hold it: it is U+FFFD, as in the rows of `ladm prepare`."""
    rows = topical_rows(golden, [512, 400])
    data = save_rows([row | {"meta": '{"pile_set_name": "a \\ud83d b"}'} for row in rows])
    run = tmp_path / "run"
    assert ladm("score", data, *SMALL, "--output", run).exit_code == 0
    for kind in ("arrow", "jsonl"):
        result = ladm("select", run, "--documents", "1", "--format", kind, "--output", tmp_path / kind)
        assert result.exit_code == 0, result.output
        assert list(json.loads((tmp_path / kind / "manifest.json").read_text())["domains"]) == ["a \ufffd b"]


def test_a_sample_is_drawn_in_proportion() -> None:
    """Two documents one standard deviation from the mean: odds of exp(2 / temperature) to 1."""
    draws, temperature = 20_000, 1.5
    uniform = np.random.default_rng(0).random((draws, 2))
    codes = np.repeat(np.arange(draws, dtype=np.int32), 2)
    keys = gumbel_keys(np.tile([0.0, 5.0], draws), uniform.ravel(), codes, temperature=temperature).reshape(draws, 2)
    expected = np.exp(2 / temperature) / (1 + np.exp(2 / temperature))
    assert (keys[:, 1] > keys[:, 0]).mean() == pytest.approx(expected, abs=0.015)
    assert np.isfinite(gumbel_keys(np.ones(2), np.array([0.0, 1.0]), np.zeros(2, dtype=np.int32), temperature=1)).all()
    # Squares of the larger values are infinite, and those of the smaller ones 0.
    values, uniform, codes = np.array([-3.0, 0.5, 7.0]), np.array([0.2, 0.4, 0.6]), np.zeros(3, dtype=np.int32)
    wanted = gumbel_keys(values, uniform, codes, temperature=1)
    for factor in (2.0**700, 2.0**-700):
        assert gumbel_keys(values * factor, uniform, codes, temperature=1).tolist() == wanted.tolist()


def test_a_sample_belongs_to_its_seed(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored
    flags = ("--documents", "3", "--sample", "--domain-key", "none")
    first, again = (selected(ladm, run, *flags, "--seed", "3", "--temperature", "9") for _ in range(2))
    assert first["positions"] == again["positions"]
    assert first["sample"] == {"temperature": 9.0, "seed": 3}
    drawn = {tuple(selected(ladm, run, *flags, "--seed", str(k), "--temperature", "9")["positions"]) for k in range(6)}
    assert len(drawn) > 1
    cold = selected(ladm, run, *flags, "--temperature", "0.001")["positions"]
    assert cold == selected(ladm, run, "--documents", "3", "--domain-key", "none")["positions"]
    by_chance = selected(ladm, run, "--documents", "3", "--by", "random", "--seed", "1", "--domain-key", "none")
    assert by_chance["by"] == "random"
    numbers = read_columns(Run.read(run), ["random"], seed=1).to_pydict()
    highest = sorted(zip(numbers["random"], numbers["position"], strict=True), reverse=True)[:3]
    assert sorted(by_chance["positions"]) == sorted(position for _, position in highest)


# The manifest's command and ids


def test_the_manifest_names_the_chosen_and_its_command_repeats_it(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    rows, run = scored
    flags = ("--rows", rows, "--top", "50%", "--by", "rank(score) + rank(length)", "--within", "length:-600")
    found = selected(ladm, run, *flags)
    (chosen,) = found["chosen"]
    assert chosen["ids"] == chosen["positions"] == found["positions"]
    assert chosen["data"] == found["run"]["data"]
    words = shlex.split(found["command"])
    assert words[:3] == ["ladm", "select", str(run)]
    shutil.rmtree(tmp_path / "subset")
    assert ladm(*words[1:]).exit_code == 0
    assert json.loads((tmp_path / "subset" / "manifest.json").read_text())["chosen"] == found["chosen"]


# Settings


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "how much to select is missing; give --tokens, --documents, --top or --min-score"),
        ("--tokens 1k --top 5%", "--tokens and --top are two budgets; give one of them"),
        ("--documents 3 --min-score 1", "--documents and --min-score are two budgets; give one of them"),
        ("--tokens 0%", "--tokens '0%' must be above 0% and at most 100%"),
        ("--tokens x%", "--tokens 'x%' is not a percentage such as 20%"),
        ("--top many", "--top 'many' is not a percentage such as 20%"),
        ("--top 101%", "--top '101%' must be above 0% and at most 100%"),
        ("--documents 0", "--documents must be at least 1, not 0"),
        ("--min-score nan", "--min-score must be finite, not nan"),
        ("--top 5% --rule percent", "--rule percent needs a number of --tokens, not --top"),
        ("--top 5% --quota tokens", "--quota cannot be combined with --top, which has no quotas by domain"),
        ("--min-score 1 --quota f", "--quota cannot be combined with --min-score, which has no quotas by domain"),
        ("--top 5% --allow-small-pool", "--allow-small-pool needs a number of --tokens or --documents"),
        ("--tokens 5% --allow-small-pool", "--allow-small-pool needs a number of --tokens or --documents"),
        ("--top 5% --temperature 2", "--temperature has no effect without --sample"),
        ("--top 5% --seed 2", "--seed has no effect without --sample or the column random"),
        ("--min-score 5 --sample", "--sample cannot be combined with --min-score, which takes every document above it"),
        ("--top 5% --sample --temperature 0", "--temperature must be above 0, not 0"),
        ("--top 5% --domain-key none --domain web",
         "--domain has no effect with --domain-key none, which makes one domain of all rows"),
        ("--top 5% --profile p.yaml", "--profile has no effect without --within profile"),
        ("--top 5% --within gzip",
         "--within 'gzip' is not COLUMN:LOW-HIGH, such as gzip_ratio:20%-80%, nor pool, pool/domain or profile"),
        ("--top 5% --by a.b()",
         "--by 'a.b()': a.b() is not allowed; an expression has columns, numbers, + - * /, parentheses, rank(x), z(x), "
         "log(x) and document_mean(x)"),
        ("--top 5% --by score+meta.quality",
         "meta.quality: there is no meta; a column of the rows is rows.NAME, such as rows.meta.quality, and one of "
         "another run or a file NAME.COLUMN, with --join NAME=RUN2 or --join NAME=FILE"),
        ("--top 5% --join other=run2",
         "--join other=run2 has no effect without a column of it, other.COLUMN"),
        ("--top 5% --within a.b:0- --join a=r --join a=s", "--join gives a twice; give each a NAME of its own"),
        ("--top 5% --by rows.a --join rows=run2",
         "--join rows=run2: rows.COLUMN is a column of the rows; give another NAME"),
        ("--top 5% --join run2",
         "--join 'run2' is not NAME=RUN2 or NAME=FILE, such as other=run2; NAME is a word of letters and _"),
        ("--top 5% --join class=run2",
         "--join 'class=run2' is not NAME=RUN2 or NAME=FILE, such as other=run2; NAME is a word of letters and _"),
        ("--top 5% --by a.b --join a=s3://b/run2",
         "--join a=s3://b/run2 is an address; copy it to this machine and give the folder of the run, or the file"),
        ("run2 --top 5% --by a.b --join a=b",
         "with several RUNs, --join takes only files: a joined run has the rows of one run only"),
    ],
)  # fmt: skip
def test_flags_that_are_refused(ladm: Command, flags: str, message: str) -> None:
    result = ladm("select", "run", "-o", "out", *flags.split())
    assert (result.exit_code, result.stderr) == (2, f"ladm: {message}\n")


def test_an_unknown_column_is_an_error_of_usage(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    for flags in (("--by", "zzz"), ("--within", "zzz:1-2"), ("--by", "rank(score) + zzz")):
        result = ladm("select", run, "--top", "5%", *flags, "-o", tmp_path / "none")
        assert (result.exit_code, result.stderr.startswith(f"ladm: {run} has no column zzz; it has score, ")) == (
            2,
            True,
        )


def test_selection_from_python(scored: tuple[str, Path], tmp_path: Path) -> None:
    import ladm

    rows, run = scored
    made = ladm.select(
        run, rows=rows, top="50%", by="rank(score) + rank(length)", within="length:-600", output=tmp_path / "s"
    )
    assert (made.manifest.by, made.manifest.taken_documents) == ("rank(score) + rank(length)", 3)
    assert made.manifest.guards[0].dropped == {"domain 0": 1}
    made = ladm.select([run], documents=2, sample=True, seed=1, output=tmp_path / "t")
    assert made.manifest.taken_documents == 2
    assert ladm.select(run, tokens="50 %", output=tmp_path / "u").manifest.budget_tokens == 1772
    with pytest.raises(ladm.LadmError, match="how much to select is missing"):
        ladm.select(run, output=tmp_path / "v")


def test_a_config_file_may_hold_all_of_it(tmp_path: Path) -> None:
    from ladm.settings.config_file import load_settings

    file = tmp_path / "c.yaml"
    file.write_text(
        "run: [a, b]\nrows: [c, d]\noutput: s\ntop: 20%\nwithin: profile\nprofile: p.yaml\nby: rank(gain)\n"
    )
    settings = load_settings(SelectSettings, str(file), {})
    assert (settings.runs, settings.rows) == (("a", "b"), ("c", "d"))
    assert (settings.top, settings.within) == (20.0, ("profile",))
