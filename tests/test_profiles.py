"""Reductions, profiles, and scores computed again from stored layers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from conftest import GOLDEN, read_lines, read_object, topical_rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ladm as front
from ladm.errors import LadmError, UsageError
from ladm.method.grid import Method
from ladm.method.reduction import Reduction, reduce_cds
from ladm.settings.profiles import Profile, profile_text, read_profile

Run = Callable[..., Result]
SMALL = ("--model", str(GOLDEN), "--dtype", "float32", "--span-tokens", "16")
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
    assert np.isnan(reduce_cds(np.array([[np.nan, 4.0, 1.0]]), "median")).all()


def test_which_columns_a_reduction_wants() -> None:
    assert Reduction(layers=(3, 5)).columns((1, 3, 5), num_heads=None) == [1, 2]
    heads = Reduction(layers=(3, 5), heads=((3, 1), (5, 0)))
    assert heads.columns((1, 3, 5), num_heads=4) == [5, 8]
    with pytest.raises(LadmError, match=r"^layer 4 is not among the layers of the run: 1, 3$"):
        Reduction(layers=(3, 4)).columns((1, 3), num_heads=None)
    with pytest.raises(LadmError, match="kept whole layers only"):
        heads.columns((1, 3, 5), num_heads=None)


def write_profile(path: Path, run: Path, reduction: Reduction, **settings: Any) -> Path:
    identity = json.loads((run / "run.json").read_text())
    method = Method.from_dict(identity["settings"] | settings)
    profile = Profile(model=identity["model"], method=method, length_tokens=512, reduction=reduction, found={"auc": 1})
    path.write_text(profile_text(profile))
    assert read_profile(path) == profile
    return path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Any]) -> tuple[str, Path]:
    """Rows, and a run of them with every layer and head kept."""
    from click.testing import CliRunner
    from datasets import Dataset

    from ladm.cli.main import main

    folder = tmp_path_factory.mktemp("kept")
    rows = topical_rows(golden, [700, 512, 700, 650, 90, 600])
    rows[1] |= {"meta": {"pile_set_name": 'a "score": 5, name'}}
    Dataset.from_list(rows).save_to_disk(str(folder / "rows"))
    command = ["score", str(folder / "rows"), *SMALL, "--output", str(folder / "run"), "--record", "heads"]
    assert CliRunner().invoke(main, command).exit_code == 0
    return str(folder / "rows"), folder / "run"


def by_index(run: Path) -> dict[int, dict[str, Any]]:
    return {line["index"]: line for line in read_lines(run / "sorted_by_score.jsonl")}


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


def test_long_range_focus_is_a_median_of_far_pairs(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    import torch

    from ladm.method.grid import span_grid
    from ladm.signals.layer_cds import long_range_focus

    grid = span_grid(512, variant="released", l=16, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    pfs_BJN = torch.rand(2, len(grid.J), grid.N)
    far = [[pfs_BJN[b, r, i].item() for r, j in enumerate(grid.J) for i in grid.I[r] if j - i >= 16] for b in (0, 1)]
    assert long_range_focus(pfs_BJN, grid).tolist() == [statistics.median_low(values) for values in far]
    rows = save_rows(topical_rows(golden, [512]))
    ladm("score", rows, *SMALL, "--output", tmp_path / "run", "--record", "range")
    assert all(0 < focus < 1 for focus in by_index(tmp_path / "run")[0]["range_per_layer"])


def test_rescoring_gives_what_scoring_gives(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    for how in ("median", "geometric"):
        direct, again = tmp_path / f"direct {how}", tmp_path / f"again {how}"
        ladm("score", rows, *SMALL, "--record", "heads", "--reduce", how, "--output", direct)
        result = ladm("rescore", run, "--reduce", how, "--output", again)
        assert result.exit_code == 0, result.output
        assert "5 documents scored, 1 without a score" in result.output
        for name in ("sorted_by_score.jsonl", "scores.parquet", "errors.jsonl"):
            assert (direct / name).read_bytes() == (again / name).read_bytes(), name
        identities = [read_object(folder / "run.json") for folder in (direct, again)]
        assert identities[1]["about"].pop("rescored_from") == str(run)
        assert [identity.pop("about") and identity for identity in identities] == [identities[0]] * 2
    result = ladm("select", tmp_path / "again median", "--rows", rows, "--tokens", "1k", "--output", tmp_path / "s")
    assert result.exit_code == 0, result.output


def test_rescoring_some_layers_and_by_a_profile_of_heads(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    before = by_index(run)
    ladm("rescore", run, "--layers", "0,2", "--output", tmp_path / "some")
    for index, line in by_index(tmp_path / "some").items():
        # The score is made of the float32 numbers, of which the line has the shortest decimals.
        first, _, last = np.array(before[index]["cds_per_layer"], dtype=np.float32).tolist()
        assert line == before[index] | {"score": (first + last) / 2, "rank": line["rank"]}
    reduction = Reduction(how="geometric", layers=(0, 1), heads=((0, 1), (1, 3)), weights=(1.0, 3.0))
    profile = write_profile(tmp_path / "p.yaml", run, reduction)
    assert ladm("rescore", run, "--profile", profile, "--output", tmp_path / "heads").exit_code == 0
    heads = len(before[0]["cds_per_head"]) // 3
    result = ladm(
        "score", rows, "--model", GOLDEN, "--dtype", "float32", "--profile", profile, "--output", tmp_path / "d"
    )
    assert result.exit_code == 0, result.output
    for index, line in by_index(tmp_path / "heads").items():
        a, b = before[index]["cds_per_head"][1], before[index]["cds_per_head"][heads + 3]
        assert line["score"] == pytest.approx(a**0.25 * b**0.75)
        direct = by_index(tmp_path / "d")[index]
        assert direct["score"] == pytest.approx(line["score"], rel=1e-5)
        assert len(direct["cds_per_layer"]) == 2


def test_signed_weights_have_no_other_layers(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    run, signed = kept[1], tmp_path / "signed"
    profile = write_profile(tmp_path / "signed.yaml", run, Reduction(how="signed", layers=(0, 2), weights=(1.0, -0.5)))
    assert ladm("rescore", run, "--profile", profile, "--output", signed).exit_code == 0
    result = ladm("rescore", signed, "--layers", "0,1", "--output", tmp_path / "other")
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {signed} was scored by the signed weights of a profile, which other layers do not have; give --reduce "
        "too, such as --reduce mean, or another --profile\n",
    )
    again = ladm("rescore", signed, "--layers", "0,1", "--reduce", "mean", "--output", tmp_path / "other")
    assert again.exit_code == 0, again.stderr


def test_a_signed_sum_is_not_inspected(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    signed = tmp_path / "signed"
    profile = write_profile(
        tmp_path / "signed.yaml", kept[1], Reduction(how="signed", layers=(0, 2), weights=(1.0, -0.5))
    )
    assert ladm("rescore", kept[1], "--profile", profile, "--output", signed).exit_code == 0
    # Rows that are not there are not looked for.
    result = ladm("inspect", signed, "--rows", tmp_path / "absent")
    assert (result.exit_code, result.stderr) == (
        1,
        "ladm: a signed sum of logarithms has no parts that add up to it; ladm rescore RUN --score robust -o RUN2 "
        "makes a run that can be inspected\n",
    )
    assert not (signed / "inspected").exists()


def test_rows_are_scored_by_signed_heads_as_they_are_rescored(
    ladm: Run, kept: tuple[str, Path], tmp_path: Path
) -> None:
    rows, run = kept
    reduction = Reduction(how="signed", layers=(0, 1), heads=((0, 1), (1, 3)), weights=(1.0, -0.5))
    profile = write_profile(tmp_path / "p.yaml", run, reduction)
    assert ladm("rescore", run, "--profile", profile, "--output", tmp_path / "rescored").exit_code == 0
    command = ("score", rows, "--model", GOLDEN, "--dtype", "float32", "--profile", profile)
    result = ladm(*command, "--output", tmp_path / "direct")
    assert result.exit_code == 0, result.output
    assert "ablation none, signed over layers 0-1\n" in result.stderr
    expected = {index: line["score"] for index, line in by_index(tmp_path / "rescored").items()}
    found = {index: line["score"] for index, line in by_index(tmp_path / "direct").items()}
    assert found == pytest.approx(expected, rel=1e-5)
    again = ladm(*command, "--output", tmp_path / "direct")
    assert (again.exit_code, "already finished" in again.output) == (0, True), again.output
    result = ladm(*command, "--reduce", "mean", "--output", tmp_path / "other")
    assert (result.exit_code, result.stderr) == (
        2,
        f"ladm: profile {profile} scores with --reduce signed, and --reduce mean was given; leave it out, or leave "
        "the profile out\n",
    )


def test_forms_are_those_of_the_ablation_and_can_be_rescored(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    ladm("score", rows, *SMALL, "--record", "forms", "--output", tmp_path / "forms")
    ladm("score", rows, *SMALL, "--record", "heads", "--ablation", "no-std", "--output", tmp_path / "no-std")
    forms, plain, ablated = (by_index(folder) for folder in (tmp_path / "forms", run, tmp_path / "no-std"))
    for index, line in forms.items():
        for name in ("cds_per_layer", "cds_per_head"):
            assert line[name] == plain[index][name]
            assert line[f"{name}_no_std"] == ablated[index][name]
    profile = write_profile(tmp_path / "p.yaml", run, Reduction(how="median", layers=(1, 2)), ablation="no-std")
    assert ladm("rescore", tmp_path / "forms", "--profile", profile, "--output", tmp_path / "again").exit_code == 0
    direct = ladm(
        "score", rows, "--model", GOLDEN, "--dtype", "float32", "--profile", profile, "--output", tmp_path / "d"
    )
    assert direct.exit_code == 0
    again, straight = by_index(tmp_path / "again"), by_index(tmp_path / "d")
    assert {index: line["score"] for index, line in again.items()} == pytest.approx(
        {index: line["score"] for index, line in straight.items()}, rel=1e-6
    )
    # Any run stores both forms of its layers, and with its heads those of its heads.
    assert ladm("rescore", run, "--profile", profile, "--output", tmp_path / "layers").exit_code == 0
    assert by_index(tmp_path / "layers").keys() == again.keys()
    of_heads = write_profile(tmp_path / "h.yaml", run, Reduction(layers=(1,), heads=((1, 0),)), ablation="no-std")
    assert ladm("rescore", run, "--profile", of_heads, "--output", tmp_path / "heads").exit_code == 0
    # Head 0 of layer 1 comes after those of layer 0, a third of all.
    first = {index: line["cds_per_head_no_std"] for index, line in forms.items()}
    found = {index: line["score"] for index, line in by_index(tmp_path / "heads").items()}
    assert found == pytest.approx({index: heads[len(heads) // 3] for index, heads in first.items()}, rel=1e-6)
    other, ablated_run = write_profile(tmp_path / "o.yaml", run, Reduction(layers=(1,))), tmp_path / "no-std"
    result = ladm("rescore", ablated_run, "--profile", other, "--output", tmp_path / "x")
    assert result.stderr == f"ladm: {other} scores with ablation none, and {ablated_run} was scored with no-std\n"


def test_a_profile_binds_the_settings_and_stops_early(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
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
        (("--span-tokens", "32"), "--span-tokens 16, and --span-tokens 32 was given"),
        (("--reduce", "mean"), "--reduce median, and --reduce mean was given"),
        (("--layers", "0-2"), "--layers 0-1, and --layers 0-2 was given"),
    ):
        result = ladm("score", rows, *plain, "--profile", profile, "--output", tmp_path / "x", *flags)
        message = f"ladm: profile {profile} scores with {conflict}; leave it out, or leave the profile out\n"
        assert (result.exit_code, result.stderr) == (2, message)
    same = ("--span-tokens", "16", "--layers", "0,1", "--reduce", "median")
    result = ladm("score", rows, *plain, "--profile", profile, "--output", tmp_path / "run", *same)
    assert result.stdout.startswith("already finished: 5 documents scored")


def test_a_profile_of_another_model_or_method_is_refused(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    profile = write_profile(tmp_path / "p.yaml", run, Reduction(layers=(0,)), d_afs=2, n=2)
    result = ladm("rescore", run, "--profile", profile, "--output", tmp_path / "a")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {profile} scores with n 2, and {run} was scored with 4\n",
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
        f"{tmp_path / 'other.yaml'} was calibrated for another model: the files of {GOLDEN} have other SHA-256; "
        "calibrate this one: ladm calibrate"
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(format=9), "format 9, and this version reads 1"),
        (lambda p: p["score"].update(reduce="sum"), "no reduction 'sum'; there is mean, median, geometric, signed"),
        (lambda p: p["score"].update(layers=[]), "a score needs at least one layer"),
        (lambda p: p["score"].update(weights=[1.0, 2.0]), "2 weights for 1 layers or heads, or none above 0"),
        (lambda p: p["score"].update(weights=[0.0]), "1 weights for 1 layers or heads, or none above 0"),
        (lambda p: p["score"].update(reduce="median", weights=[1.0]), "a median takes no weights"),
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
    assert str(caught.value) == f"profile {path}: {message}"


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(UsageError, match=r"p\.yaml: No such file or directory$"):
        read_profile(path)
    path.write_text("a: [")
    with pytest.raises(UsageError, match=r"p\.yaml is not YAML: "):
        read_profile(path)
    for text in ("", "[]", "format: 1", "5"):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"p\.yaml is not a profile of ladm calibrate: "):
            read_profile(path)


def test_rescore_faults_in_full(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    heads = write_profile(tmp_path / "h.yaml", run, Reduction(layers=(0,), heads=((0, 1),)))
    ladm("score", rows, *SMALL, "--output", tmp_path / "layers")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    out = ("--output", tmp_path / "out")
    for arguments, code, message in (
        ((run, *out), 2, "nothing to change: give --score, --profile, --reduce or --layers"),
        ((run, *out, "--profile", heads, "--reduce", "mean"), 2,
         "--profile sets the layers and the reduction; leave --reduce and --layers out"),
        ((run, *out, "--layers", "5"), 2, f"layer 5 is not one of {run}, which has layers 0-2"),
        ((tmp_path / "layers", *out, "--profile", heads), 1,
         f"{tmp_path / 'layers'} did not store cds_per_head; score it again with --record heads"),
        ((tmp_path / "none", *out, "--reduce", "mean"), 1, f"{tmp_path / 'none'} is not a run: it has no run.json"),
        ((run, "--output", tmp_path / "full", "--reduce", "mean"), 1,
         f"{tmp_path / 'full'} belongs to something else (it holds x); give --output an empty folder"),
    ):  # fmt: skip
        result = ladm("rescore", *arguments)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
        assert not (tmp_path / "out" / "run.json").exists()
    assert ladm("rescore", run, *out, "--reduce", "median").exit_code == 0
    result = ladm("rescore", run, *out, "--reduce", "geometric")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        1,
        f"ladm: {tmp_path / 'out'} was started with something else (--reduce, --score, --layers, --reduce or "
        "--profile); give them as they were, or another --output:",
    )


def test_rescoring_a_damaged_run(ladm: Run, kept: tuple[str, Path], tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(kept[1], run)
    lines = (run / "sorted_by_score.jsonl").read_bytes().splitlines(keepends=True)
    (run / "sorted_by_score.jsonl").write_bytes(b"".join(lines[:-1]))
    result = ladm("rescore", run, "--reduce", "median", "--output", tmp_path / "a")
    path = run / "sorted_by_score.jsonl"
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: {path} is damaged: it has fewer lines than scores.parquet has rows\n",
    )  # fmt: skip
    path.write_bytes(b"{}\n" * len(lines))
    result = ladm("rescore", run, "--reduce", "median", "--output", tmp_path / "a")
    assert (result.exit_code, result.stderr) == (74, f"ladm: {path} is damaged: '{{}}\\n' is not a line of results\n")
    path.write_bytes(b"".join(lines))
    assert ladm("rescore", run, "--reduce", "median", "--output", tmp_path / "a").exit_code == 0
    assert pq.read_table(tmp_path / "a" / "scores.parquet").num_rows == len(lines)
