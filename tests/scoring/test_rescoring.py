"""`ladm rescore`: scores computed again from stored layers and heads, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ladm.method.reduction import Reduction
from support.commands import Command
from support.files import read_object
from support.models import SMALL
from support.paths import GOLDEN
from support.profiles import write_profile
from support.runs import by_index


def test_rescoring_gives_what_scoring_gives(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = kept
    for how in ("median", "geometric"):
        direct, again = tmp_path / f"direct {how}", tmp_path / f"again {how}"
        ladm("score", rows, *SMALL, "--record", "heads", "--reduce", how, "--output", direct)
        result = ladm("rescore", run, "--reduce", how, "--output", again)
        assert result.exit_code == 0, result.output
        assert "5 rows scored, 1 without a score" in result.output
        for name in ("sorted_by_score.jsonl", "scores.parquet", "errors.jsonl"):
            assert (direct / name).read_bytes() == (again / name).read_bytes(), name
        identities = [read_object(folder / "run.json") for folder in (direct, again)]
        assert identities[1]["about"].pop("rescored_from") == str(run)
        assert [identity.pop("about") and identity for identity in identities] == [identities[0]] * 2
    result = ladm("select", tmp_path / "again median", "--rows", rows, "--tokens", "1k", "--output", tmp_path / "s")
    assert result.exit_code == 0, result.output


def test_rescoring_some_layers_and_by_a_profile_of_heads(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
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


def test_signed_weights_have_no_other_layers(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
    run, signed = kept[1], tmp_path / "signed"
    profile = write_profile(tmp_path / "signed.yaml", run, Reduction(how="signed", layers=(0, 2), weights=(1.0, -0.5)))
    assert ladm("rescore", run, "--profile", profile, "--output", signed).exit_code == 0
    result = ladm("rescore", signed, "--layers", "0,1", "--output", tmp_path / "other")
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {signed} was scored with the signed weights of a profile, which other layers do not have; give "
        "--reduce too, such as --reduce mean, or another --profile\n",
    )
    again = ladm("rescore", signed, "--layers", "0,1", "--reduce", "mean", "--output", tmp_path / "other")
    assert again.exit_code == 0, again.stderr


def test_a_signed_sum_is_not_inspected(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
    signed = tmp_path / "signed"
    profile = write_profile(
        tmp_path / "signed.yaml", kept[1], Reduction(how="signed", layers=(0, 2), weights=(1.0, -0.5))
    )
    assert ladm("rescore", kept[1], "--profile", profile, "--output", signed).exit_code == 0
    # Rows that are not there are not looked for.
    result = ladm("inspect", signed, "--rows", tmp_path / "absent")
    assert (result.exit_code, result.stderr) == (
        1,
        "ladm: the score is a signed sum of logarithms, which cannot be divided among pairs of spans; make a run that "
        "can be inspected: ladm rescore RUN --score robust -o RUN2\n",
    )
    assert not (signed / "inspected").exists()


def test_forms_are_those_of_the_ablation_and_can_be_rescored(
    ladm: Command, kept: tuple[str, Path], tmp_path: Path
) -> None:
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
    assert result.stderr == f"ladm: {other} scores with ablation none, but {ablated_run} was scored with no-std\n"


def test_rescore_faults_in_full(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
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
        ((tmp_path / "none", *out, "--reduce", "mean"), 1, f"no such run: {tmp_path / 'none'} does not exist"),
        ((run, "--output", tmp_path / "full", "--reduce", "mean"), 1,
         f"{tmp_path / 'full'} belongs to something else (it holds x); give --output an empty folder"),
    ):  # fmt: skip
        result = ladm("rescore", *arguments)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
        assert not (tmp_path / "out").exists()
    assert ladm("rescore", run, *out, "--reduce", "median").exit_code == 0
    result = ladm("rescore", run, *out, "--reduce", "geometric")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        1,
        f"ladm: {tmp_path / 'out'} was started with something else (--score, --layers, --reduce or "
        "--profile); give what it was started with, or another --output:",
    )


def test_rescoring_a_damaged_run(ladm: Command, kept: tuple[str, Path], tmp_path: Path) -> None:
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
