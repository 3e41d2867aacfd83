"""Reductions, profiles, and scores that are made with them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ladm as front
from ladm.errors import LadmError, UsageError
from ladm.method.reduction import Reduction, reduce_cds
from ladm.settings.profiles import read_profile
from support.commands import Command
from support.models import SMALL
from support.paths import GOLDEN
from support.profiles import write_profile
from support.rows import topical_rows
from support.runs import by_index

POSITIVE = st.floats(1e-6, 1e6)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=POSITIVE))
def test_a_reduction_is_what_it_is_called(cds_BP: Any) -> None:
    for cds_P, mean, median, geometric in zip(
        cds_BP, reduce_cds(cds_BP, "mean"), reduce_cds(cds_BP, "median"), reduce_cds(cds_BP, "geometric"), strict=True
    ):
        assert mean == pytest.approx(statistics.fmean(cds_P), rel=1e-12)
        assert median == statistics.median(cds_P)
        assert geometric == pytest.approx(statistics.geometric_mean(cds_P), rel=1e-9)


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 70), st.integers(1, 40)), elements=POSITIVE),
    st.sampled_from(["mean", "median", "geometric"]),
)
def test_a_score_does_not_depend_on_how_many_are_made_at_once(cds_BP: Any, how: str) -> None:
    weights = None if how == "median" else tuple(float(w) for w in range(1, cds_BP.shape[1] + 1))
    together = reduce_cds(cds_BP, how, weights)
    alone = [reduce_cds(cds_BP[row : row + 1], how, weights)[0] for row in range(len(cds_BP))]
    assert together.tolist() == alone


def test_weights_and_a_layer_without_focus() -> None:
    assert reduce_cds(np.array([[1.0, 4.0]]), "mean", (3.0, 1.0)).tolist() == [1.75]
    assert reduce_cds(np.array([[1.0, 4.0]]), "geometric", (1.0, 1.0)).tolist() == [2.0]
    assert reduce_cds(np.array([[0.0, 4.0]]), "geometric").tolist() == [0.0]
    assert reduce_cds(np.array([[0.0, 4.0]]), "geometric", (0.0, 2.0)).tolist() == [4.0]
    assert np.isnan(reduce_cds(np.array([[np.nan, 4.0, 1.0]]), "median")).all()
    for how in ("mean", "geometric", "signed"):
        assert np.isnan(reduce_cds(np.array([[np.nan, 4.0]]), how, (0.0, 1.0))).all()


def test_which_columns_a_reduction_wants() -> None:
    assert Reduction(layers=(3, 5)).columns((1, 3, 5), num_heads=None) == [1, 2]
    heads = Reduction(layers=(3, 5), heads=((3, 1), (5, 0)))
    assert heads.columns((1, 3, 5), num_heads=4) == [5, 8]
    with pytest.raises(LadmError, match=r"^layer 4 is not among the layers of the run: 1, 3$"):
        Reduction(layers=(3, 4)).columns((1, 3), num_heads=None)
    with pytest.raises(LadmError, match="stored only whole layers"):
        heads.columns((1, 3, 5), num_heads=None)


def test_heads_are_scored_by_the_equations(kept: tuple[str, Path], golden_observer: Any, golden: Any) -> None:
    import torch

    from ladm.method.focus import aggregated_focus, contextual_dependency, pairwise_focus
    from ladm.method.grid import span_grid

    line = by_index(kept[1])[0]
    views: list[Any] = []
    golden_observer.observe(torch.tensor([golden["input_ids"][0][:700]]), views.append)
    grid = span_grid(700, variant="released", l=16, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    expected = []
    for view in views:
        H, G = view.q_BHTD.shape[1], view.k_BGTD.shape[1]
        for head in range(H):
            q_HTD = view.q_BHTD[0, head : head + 1]
            k_GTD = view.k_BGTD[0, head * G // H : head * G // H + 1]
            pfs_JN = pairwise_focus(q_HTD, k_GTD, scaling=view.scaling, grid=grid)
            expected.append(contextual_dependency(aggregated_focus(pfs_JN, grid), grid).item())
    assert line["cds_per_head"] == pytest.approx(expected, rel=1e-5)
    assert len(line["cds_per_layer"]) == 3


def test_long_range_focus_is_a_median_of_far_pairs(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    import torch

    from ladm.method.cds import long_range_focus
    from ladm.method.grid import span_grid

    grid = span_grid(512, variant="released", l=16, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    pfs_BJN = torch.rand(2, len(grid.J), grid.N)
    far = [[pfs_BJN[b, r, i].item() for r, j in enumerate(grid.J) for i in grid.I[r] if j - i >= 16] for b in (0, 1)]
    assert long_range_focus(pfs_BJN, grid).tolist() == [statistics.median_low(values) for values in far]
    rows = save_rows(topical_rows(golden, [512]))
    ladm("score", rows, *SMALL, "--output", tmp_path / "run", "--record", "range")
    assert all(0 < focus < 1 for focus in by_index(tmp_path / "run")[0]["range_per_layer"])


def test_rows_are_scored_by_signed_heads_as_they_are_rescored(
    ladm: Command, kept: tuple[str, Path], tmp_path: Path
) -> None:
    rows, run = kept
    reduction = Reduction(how="signed", layers=(0, 1), heads=((0, 1), (1, 3)), weights=(1.0, -0.5))
    profile = write_profile(tmp_path / "p.yaml", run, reduction)
    assert ladm("rescore", run, "--profile", profile, "--output", tmp_path / "rescored").exit_code == 0
    command = ("score", rows, "--model", GOLDEN, "--dtype", "float32", "--profile", profile)
    result = ladm(*command, "--output", tmp_path / "direct")
    assert result.exit_code == 0, result.output
    assert "\nscore     signed over layers 0-1\n" in result.stderr
    expected = {index: line["score"] for index, line in by_index(tmp_path / "rescored").items()}
    found = {index: line["score"] for index, line in by_index(tmp_path / "direct").items()}
    assert found == pytest.approx(expected, rel=1e-5)
    again = ladm(*command, "--output", tmp_path / "direct")
    assert (again.exit_code, "already finished" in again.output) == (0, True), again.output
    result = ladm(*command, "--reduce", "mean", "--output", tmp_path / "other")
    assert (result.exit_code, result.stderr) == (
        2,
        f"ladm: profile {profile} scores with --reduce signed, but --reduce mean was given; leave out that flag or the "
        "profile\n",
    )


def test_rows_of_other_lengths_than_the_profile_are_counted(
    ladm: Command, kept: tuple[str, Path], save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """The first row has the length of the profile, which says nothing about the others."""
    profile = write_profile(tmp_path / "p.yaml", kept[1], Reduction(layers=(0, 1)))
    rows = save_rows(topical_rows(golden, [512, 700, 600, 512]), "other")
    for flags in ((), ("--dry-run",)):
        result = ladm("score", rows, *SMALL[:-2], "--profile", profile, "--output", tmp_path / "run", *flags)
        assert result.exit_code == 0, result.output
        assert (
            f"warning   2 of 4 rows have 600 to 700 tokens; profile {profile} was calibrated at 512 and was not "
            "evaluated at other lengths\n"
        ) in result.stderr


def test_a_profile_binds_the_settings_and_stops_early(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    profile = write_profile(tmp_path / "p.yaml", run, Reduction(how="median", layers=(0, 1)))
    plain = ("--model", GOLDEN, "--dtype", "float32")
    result = ladm("score", rows, *plain, "--profile", profile, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert f"profile   {profile}: calibrated at 512 tokens\n" in result.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["layers"] == [0, 1]
    for index, line in by_index(tmp_path / "run").items():
        assert line["cds_per_layer"] == pytest.approx(by_index(run)[index]["cds_per_layer"][:2], rel=1e-6)
    for flags, conflict in (
        (("--span-tokens", "32"), "--span-tokens 16, but --span-tokens 32 was given"),
        (("--reduce", "mean"), "--reduce median, but --reduce mean was given"),
        (("--layers", "0-2"), "--layers 0-1, but --layers 0-2 was given"),
    ):
        result = ladm("score", rows, *plain, "--profile", profile, "--output", tmp_path / "x", *flags)
        message = f"ladm: profile {profile} scores with {conflict}; leave out that flag or the profile\n"
        assert (result.exit_code, result.stderr) == (2, message)
    same = ("--span-tokens", "16", "--layers", "0,1", "--reduce", "median")
    result = ladm("score", rows, *plain, "--profile", profile, "--output", tmp_path / "run", *same)
    assert result.stdout.startswith("already finished: 5 rows scored")


def test_a_profile_of_another_model_or_method_is_refused(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    profile = write_profile(tmp_path / "p.yaml", run, Reduction(layers=(0,)), d_afs=2, n=2)
    result = ladm("rescore", run, "--profile", profile, "--output", tmp_path / "a")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {profile} scores with n 2, but {run} was scored with 4\n",
    )  # fmt: skip
    other = yaml.safe_load(profile.read_text())
    del other["checksum"]
    other["model"]["sha256"]["model.safetensors"] = "0" * 64
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    result = ladm("rescore", run, "--profile", tmp_path / "other.yaml", "--output", tmp_path / "a")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {tmp_path / 'other.yaml'} was calibrated for another model than the one of {run}\n",
    )  # fmt: skip
    message = (
        f"{tmp_path / 'other.yaml'} was calibrated for another model: the files of {GOLDEN} have other SHA-256 "
        "digests; calibrate this model: ladm calibrate"
    )
    command = ("score", rows, "--model", GOLDEN, "--profile", tmp_path / "other.yaml", "--output", tmp_path / "a")
    for more in ((), ("--dry-run",)):
        result = ladm(*command, *more)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"ladm: {message}")
    assert not (tmp_path / "a" / "run.json").exists()
    with pytest.raises(LadmError) as caught:
        front.Scorer(GOLDEN, profile=tmp_path / "other.yaml")
    assert str(caught.value) == message


def test_a_profile_with_another_digit_is_refused_unless_its_checksum_is_removed(
    kept: tuple[str, Path], tmp_path: Path
) -> None:
    path = write_profile(tmp_path / "p.yaml", kept[1], Reduction(layers=(0, 1), weights=(0.25, 0.75)))
    text = path.read_text()
    assert read_profile(path).reduction.weights == (0.25, 0.75)
    path.write_text(text.replace("0.25", "0.27"))
    with pytest.raises(UsageError) as caught:
        read_profile(path)
    message = "damaged, or edited by hand; if you edited it, remove its line checksum"
    assert str(caught.value) == f"profile {path}: {message}"
    path.write_text(text.replace("checksum", "checksuM"))
    with pytest.raises(UsageError, match="damaged: its last key should be checksum$"):
        read_profile(path)
    path.write_text("".join(text.replace("0.25", "0.27").splitlines(keepends=True)[:-1]))
    assert read_profile(path).reduction.weights == (0.27, 0.75)


NO_PROFILE = "is not a profile of ladm calibrate: "
SIGNED = "a signed sum needs a weight for every layer or head, and one that is not 0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(format=9), "format 9, and this version reads 1"),
        (lambda p: p["score"].update(reduce="sum"), "no reduction 'sum'; choose from mean, median, geometric, signed"),
        (lambda p: p["score"].update(focus="odd"), "no focus 'odd'; choose from plain, value"),
        (lambda p: p["score"].update(layers=[]), "a score needs at least one layer"),
        (lambda p: p["score"].update(layers=[1, 0]), "layers and heads must be in order, each once"),
        (lambda p: p["score"].update(heads=["L1H0"]), "the heads are not those of the layers"),
        (lambda p: p["score"].update(heads=["L0"]), NO_PROFILE + "'L0' is not a head such as L14H3"),
        (lambda p: p["score"].update(heads=[3]), NO_PROFILE + "3 is not a head such as L14H3"),
        (lambda p: p.update(band={"score": [3, 2, 1]}), NO_PROFILE + "[3, 2, 1] are not three quantiles in order"),
        (lambda p: p.update(band={"score": [1, 2]}), NO_PROFILE + "[1, 2] are not three quantiles in order"),
        (lambda p: p["score"].update(reduce="signed", weights=[0.0]), SIGNED),
        (lambda p: p["score"].update(reduce="signed", weights=[math.inf]), "every weight must be a finite number"),
        (lambda p: p["score"].update(weights=[1.0, 2.0]), "2 weights for 1 layers or heads, or none above 0"),
        (lambda p: p["score"].update(weights=[0.0]), "1 weights for 1 layers or heads, or none above 0"),
        (lambda p: p["score"].update(reduce="median", weights=[1.0]), "a median takes no weights"),
        (lambda p: p["settings"].update(variant="Paper"), "no variant 'Paper'; choose from released, paper"),
        (lambda p: p["settings"].update(span_tokens=0), "span_tokens must be a whole number of at least 1, not 0"),
        (lambda p: p["settings"].update(d_afs="4"), "d_afs must be a whole number of at least 1, not '4'"),
        (lambda p: p["settings"].update(m=True), "m must be a whole number of at least 0, not True"),
        (
            lambda p: p["settings"].update(n=0),
            "n must be at least 1 in the released variant, whose nearest span is j-n",
        ),
        (lambda p: p["settings"].update(n0=-1), "n0 must be a whole number of at least 0, not -1"),
        (
            lambda p: p["settings"].update(ablation="no_std"),
            "no ablation 'no_std'; choose from none, no-std, no-length",
        ),
    ],
)
def test_a_profile_that_cannot_be_used(
    kept: tuple[str, Path], tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    path = write_profile(tmp_path / "p.yaml", kept[1], Reduction(layers=(0,)))
    content = yaml.safe_load(path.read_text())
    del content["checksum"]
    change(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError) as caught:
        read_profile(path)
    assert str(caught.value).removeprefix(f"profile {path}").lstrip(": ") == message


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(UsageError, match=r"p\.yaml: No such file or directory$"):
        read_profile(path)
    path.write_text("a: [")
    with pytest.raises(UsageError, match=r"p\.yaml is not YAML: "):
        read_profile(path)
    for text, reason in (
        ("", "no keys"),
        ("[]", "no keys"),
        ("5", "no keys"),
        ("a: 1", "no format"),
        ("format: 1", "no .*"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=rf"p\.yaml is not a profile of ladm calibrate: it has {reason}$"):
            read_profile(path)
