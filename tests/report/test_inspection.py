"""Where a score comes from: its parts add up to it, also in the files that `ladm inspect` writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from ladm.cli.display import inspected_lines
from ladm.comparison.top import top_documents
from ladm.corpus.preparation.tokenization import plain_tokenizer, spell
from ladm.corpus.rows.reading import open_rows
from ladm.explain.chosen_documents import choose_documents
from ladm.explain.inspected_document import SpanPair, SpanText, read_inspected, write_inspected
from ladm.method.attribution import column_weights, pair_parts, strongest_pairs, token_focus
from ladm.method.cds import used_pairs_JN
from ladm.method.focus import aggregated_focus, contextual_dependency, pairwise_focus
from ladm.method.grid import span_grid
from ladm.method.pfs_torch import Focus
from ladm.method.reduction import Reduction, reduce_cds
from ladm.modeling.attention_function import LayerView
from ladm.runs.folder import Run
from ladm.settings.comparison import TopSettings
from ladm.settings.runs import InspectSettings
from support.files import read_lines, read_object
from support.models import SMALL
from support.rows import topical_rows


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("ablation", ["none", "no-std", "no-length"])
@pytest.mark.parametrize(("n", "d_afs", "d_cds", "T"), [(4, 4, 4, 517), (1, 3, 2, 300)])
def test_parts_of_pairs_add_up_to_cds(variant: Any, ablation: Any, n: int, d_afs: int, d_cds: int, T: int) -> None:
    grid = span_grid(T, variant=variant, l=16, m=1, n=n, n0=None, d_afs=d_afs, d_cds=d_cds, ablation=ablation)
    pfs_PJN = torch.rand(3, len(grid.J), grid.N, generator=torch.Generator().manual_seed(1))
    pfs_PJN[1, 0] = 0.0
    parts = pair_parts(pfs_PJN, grid, ablation=ablation)
    assert not parts[:, ~used_pairs_JN(grid)].any()
    cds = contextual_dependency(aggregated_focus(pfs_PJN, grid, ablation=ablation), grid, ablation=ablation)
    torch.testing.assert_close(parts.sum(dim=(1, 2)), cds, rtol=1e-5, atol=0)
    # By hand, pair by pair: c_j sigma_j PFS(i, j) d(i, j).
    for row, j in enumerate(grid.J):
        used = pfs_PJN[2, row, list(grid.I[row])]
        sigma = 1.0 if ablation == "no-std" else float(used.std())
        late = grid.start(j) / T if variant == "released" else j / grid.N
        c = 1.0 if ablation == "no-length" else late
        c /= len(grid.J) if variant == "released" else 1
        for i, pfs in zip(grid.I[row], used.tolist(), strict=True):
            far = (j - i) * 16 / T if variant == "released" else j - i
            d = 1.0 if ablation == "no-length" else far
            assert parts[2, row, i].item() == pytest.approx(c * sigma * pfs * d, rel=1e-4)


@pytest.mark.parametrize("columns", [1, 2, 5, 6])
@pytest.mark.parametrize("how", ["mean", "median", "geometric"])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_columns_make_the_score(columns: int, how: str, weighted: bool) -> None:
    if weighted and how == "median":
        return
    draw = np.random.default_rng(columns)
    cds = draw.uniform(0.01, 3, columns)
    weights = tuple(draw.uniform(0.1, 1, columns)) if weighted else None
    reduction = Reduction(how=how, layers=tuple(range(columns)), weights=weights)
    score = reduce_cds(cds[None], how, weights)[0]
    found = column_weights(cds, reduction)
    assert (found * cds).sum() == pytest.approx(score, rel=1e-12)
    w = np.array(weights or [1.0] * columns) / sum(weights or [1.0] * columns)
    if how == "mean":
        assert found == pytest.approx(w)
    if how == "geometric":  # each has the share of the score that its weight has
        assert found * cds / score == pytest.approx(w)
    if how == "median":
        middle = np.sort(cds)[(columns - 1) // 2 : columns // 2 + 1]
        assert found == pytest.approx(np.isin(cds, middle) / len(middle))


def test_a_geometric_mean_of_zero_has_no_parts() -> None:
    reduction = Reduction(how="geometric", layers=(0, 1))
    assert column_weights(np.array([0.0, 1.0]), reduction).tolist() == [0.0, 0.0]


def test_a_layer_of_weight_zero_has_no_part_in_a_geometric_mean() -> None:
    reduction = Reduction(how="geometric", layers=(0, 1), weights=(0.0, 2.0))
    assert column_weights(np.array([0.0, 4.0]), reduction).tolist() == [0.0, 1.0]
    assert column_weights(np.array([3.0, 0.0]), reduction).tolist() == [0.0, 0.0]


def test_a_document_without_focus_is_decomposed(golden_observer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.explain import decompose

    ids = torch.arange(512).unsqueeze(0)
    grid = span_grid(512, variant="released", l=16, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    nothing = torch.zeros(1, 1, len(grid.J), grid.N)
    monkeypatch.setattr(decompose, "measure_focus", lambda *_, **__: Focus(pfs_BKJN=nothing))
    for how in ("mean", "median", "geometric"):
        decomposer = decompose.Decomposer(
            observer=golden_observer, reduction=Reduction(how=how, layers=(0, 1, 2)), ablation="none", backend="torch",
            most_pairs=4,
        )  # fmt: skip
        found = decomposer.decompose(ids, grid)
        assert (found.score, found.pairs, found.part_JN.sum()) == (0.0, [], 0.0)
        assert found.pfs_JN.isfinite().all()


@pytest.mark.parametrize("most_bytes", [0, 300_000, 2**30])
def test_layers_that_are_kept_are_those_of_another_pass(golden_observer: Any, most_bytes: int) -> None:
    from ladm.explain.views import DocumentViews

    passes: list[list[LayerView]] = [[], []]
    runs: list[int] = []

    class Counted:
        def observe(self, ids: torch.Tensor, visit: Any) -> None:
            runs.append(1)
            golden_observer.observe(ids, visit)

    ids = torch.arange(512).unsqueeze(0)
    views = DocumentViews(Counted(), ids, most_bytes=most_bytes)  # type: ignore[arg-type]
    for found in passes:
        views.visit_all(found.append)
    # A layer takes 262,144 bytes: one of three fits 300,000.
    assert len(runs) == (1 if most_bytes == 2**30 else 2)
    assert [view.layer for view in passes[0]] == [view.layer for view in passes[1]] == [0, 1, 2]
    for first, second in zip(*passes, strict=True):
        assert torch.equal(first.q_BHTD, second.q_BHTD)
        assert torch.equal(first.v_BGTD, second.v_BGTD)


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_tokens_add_up_to_the_focus_of_their_spans(variant: Any) -> None:
    draw = torch.Generator().manual_seed(2)
    q, k = torch.randn(4, 205, 8, generator=draw), torch.randn(2, 205, 8, generator=draw)
    grid = span_grid(205, variant=variant, l=16, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    pfs_JN = pairwise_focus(q, k, scaling=0.4, grid=grid)
    for row, j in enumerate(grid.J):
        for i in grid.I[row]:
            found = token_focus(q, k, scaling=0.4, grid=grid, j=j, i=i)
            assert found.shape == (4, 16, 16)
            assert found.mean(dim=0).sum().item() == pytest.approx(pfs_JN[row, i].item(), rel=1e-5)


def test_the_strongest_pairs_share_no_span() -> None:
    part = torch.tensor([[0.0, 5.0, 4.0], [3.0, 6.0, 0.5], [0.0, 0.0, 0.0]])
    assert list(strongest_pairs(part, 4)) == [(1, 1), (0, 2)]


@pytest.fixture
def scored(ladm: Any, talking: Path, save_rows: Any, golden: Any, tmp_path: Path) -> Path:
    """A run of seven rows by a model that has a tokenizer."""
    rows = save_rows(topical_rows(golden, [700, 512, 700, 650, 512, 700, 512]))
    result = ladm("score", rows, *SMALL, "--model", talking, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def inspected(run: Path) -> list[dict[str, Any]]:
    return [read_object(path) for path in sorted((run / "inspected").iterdir())]


def test_the_best_and_the_worst_are_decomposed(ladm: Any, scored: Path, talking: Path) -> None:
    ranked = read_lines(scored / "sorted_by_score.jsonl")
    result = ladm("inspect", scored, "--top", "2", "--bottom", "1")
    assert result.exit_code == 0, result.output
    assert "device    cpu in float32, layers 0-2 of 3, 3 rows\n" in result.stderr
    paths = [Path(line) for line in result.stdout.splitlines() if line.endswith(".json")]
    found = [read_object(path) for path in paths]
    assert [one["index"] for one in found] == [ranked[k]["index"] for k in (0, 1, -1)]
    tokenizer = plain_tokenizer(str(talking))
    rows = open_rows(str(scored.parent / "rows"))
    for one in found:
        assert one["score"] == one["score_here"]
        assert sum(map(sum, one["part"])) == pytest.approx(one["score"], rel=1e-4)
        assert sum(c["cds"] * c["weight"] for c in one["columns"]) == pytest.approx(one["score"], rel=1e-4)
        assert [len(spans) for spans in one["i"]] == [len(parts) for parts in one["part"]]
        ids = rows.ids_at(one["position"], vocab_size=512).tolist()
        assert one["excerpt"] == tokenizer.decode(ids[:80])
        largest = max(max(parts) for parts in one["part"])
        assert one["pairs"][0]["part"] == pytest.approx(largest)
        for pair in one["pairs"]:
            row = one["j"].index(pair["j"])
            assert pair["part"] == one["part"][row][one["i"][row].index(pair["i"])]
            for side, span in (("later", pair["j"]), ("earlier", pair["i"])):
                first = pair[side]["first_token"]
                assert first == one["first_token"] + span * 16
                assert "".join(pair[side]["tokens"]).strip() == tokenizer.decode(ids[first : first + 16]).strip()
                around = tokenizer.decode(ids[max(0, first - 32) : first + 48])
                assert pair[side]["before"] + "".join(pair[side]["tokens"]) + pair[side]["after"] == around
                assert sum(pair[side]["weights"]) == pytest.approx(pair["part"], rel=1e-4)


def test_the_strongest_pairs_are_printed_with_their_texts(ladm: Any, scored: Path) -> None:
    result = ladm("inspect", scored, "--top", "2")
    assert result.exit_code == 0, result.output
    first = read_lines(scored / "sorted_by_score.jsonl")[0]
    lines = result.stdout.splitlines()
    assert len(lines) == 2 * (1 + 2 * 3 + 1)
    content = read_object(Path(lines[7]))
    assert content["index"] == first["index"]
    assert lines[0] == f"{first['index']} (row {content['position']}): score {first['score']:.6g}, of which"
    strongest = content["pairs"][:3]
    shares = [pair["part"] / first["score"] for pair in strongest]
    for pair, share, later, earlier in zip(strongest, shares, lines[1:7:2], lines[2:7:2], strict=True):
        heads = (f"{100 * share:>6.1f} %  ", "    from  ")
        for side, head, line in zip(("later", "earlier"), heads, (later, earlier), strict=True):
            start = f"{head}token {pair[side]['first_token']:>6,}  "
            assert line.startswith(start)
            shown = line[len(start) :].removesuffix("…")
            assert 20 < len(shown) <= 80
            assert " ".join(("".join(pair[side]["tokens"]) + pair[side]["after"]).split()).startswith(shown)
    as_json = json.loads(ladm("inspect", scored, "--top", "2", "--json").stdout)
    assert as_json["files"] == [lines[7], lines[15]] == [found["file"] for found in as_json["documents"]]
    found = as_json["documents"][0]
    names = (str(first["index"]), content["position"], first["score"])
    assert (found["id"], found["position"], found["score"]) == names
    assert [pair["share"] for pair in found["pairs"]] == shares
    later = strongest[0]["later"]
    assert found["pairs"][0]["later"] == {"first_token": later["first_token"], "text": "".join(later["tokens"])}


def test_inspected_texts_without_ids_are_named_by_their_files(
    ladm: Any, talking: Path, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = topical_rows(golden, [512, 512])
    for k, row in enumerate(rows):
        row["source"] = f"books/{'long name ' * 5}{k}.txt"
    run = tmp_path / "run"
    assert ladm("score", save_rows(rows), *SMALL, "--model", talking, "--output", run).exit_code == 0
    # As `ladm top` shows it, in full or by its number alone.
    for name in (f"1 {'long name ' * 5}1.txt", "1"):
        result = ladm("inspect", run, "--id", name)
        assert result.exit_code == 0, result.output
        assert re.match(r"1 long name .*….*name 1\.txt \(row 1\): score ", result.stdout)
    found = json.loads(ladm("inspect", run, "--id", "1", "--json").stdout)["documents"]
    assert [(each["id"], each["name"]) for each in found] == [("1", f"1 {'long name ' * 5}1.txt")]


def test_texts_of_spans_cannot_change_the_terminal() -> None:
    tokens = ["a\x1b[2J", "\n\n", "\u202eb"]
    span = SpanText(first_token=3, tokens=tokens, weights=[1.0] * 3, before="", after=" c" * 99)
    bare = SpanText(first_token=0, tokens=[], weights=[1.0], before="", after="")
    document = Mock(score=0.0, position=7, pairs=[SpanPair(j=1, i=0, part=0.0, pfs=0.0, later=span, earlier=bare)])
    document.share = lambda _: 0.0
    head, later, earlier = inspected_lines(document, "x\ry")
    assert (head, earlier) == ("x?y (row 7): score 0, of which", "    from  token      0")
    assert later == f"   0.0 %  token      3  {('a?[2J ?b' + ' c' * 99)[:79]}…"


def test_a_file_is_read_as_it_was_written(ladm: Any, scored: Path, tmp_path: Path) -> None:
    assert ladm("inspect", scored, "--top", "1").exit_code == 0
    (path,) = (scored / "inspected").iterdir()
    document = read_inspected(path)
    assert document.to_json() == read_object(path)
    write_inspected(tmp_path / "again.json", document)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_documents_are_chosen_by_their_index(ladm: Any, scored: Path) -> None:
    assert ladm("inspect", scored, "--id", "4", "--id", "1").exit_code == 0
    assert [one["index"] for one in inspected(scored)] == [1, 4]
    result = ladm("inspect", scored, "--id", "4", "--id", "x")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: no document of {scored} with the id or index 'x' has a score; ladm top {scored} shows ids, and its "
        "errors.jsonl lists the rows without a score\n",
    )  # fmt: skip


def test_a_name_is_an_id_or_else_an_index(
    score_once: Any, ladm: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = topical_rows(golden, [400] * 5)
    ids = ["perl-5", "0", "twice", "twice", None]
    run = tmp_path / "run"
    folder = save_rows([row | {"index": k, "id": name} for k, (row, name) in enumerate(zip(rows, ids, strict=True))])
    score_once(folder, "--signals", "cds", output=run)
    # "0" is the name of the second document, and no document is called 1 or 4.
    cases = (("perl-5", {0}), ("0", {1}), ("1", {1}), ("twice", {2, 3}), ("4", {4}), ("#4", {4}))
    shown = {document.id for document in top_documents(TopSettings(run=str(run), number=9)).documents}
    assert shown == {"perl-5", "0", "twice", "#4"}
    for name, expected in cases:
        chosen = choose_documents(Run.read(run), InspectSettings(run=str(run), id=(name,)))
        assert {document.index for document in chosen} == expected
    # The page has the id in the title of a document.
    assert ladm("inspect", run, "--id", "perl-5").exit_code == ladm("report", run).exit_code == 0
    assert re.search(r"<h3>Rank \d · <bdi>perl-5</bdi> · score ", (run / "report.html").read_text())


@pytest.mark.parametrize("ids", [["a", "a", "b"], [7, 7, 8], None])
def test_a_window_is_named_as_ladm_top_shows_it(
    score_once: Any, save_rows: Any, golden: Any, tmp_path: Path, ids: list[Any] | None
) -> None:
    named = [{} if ids is None else {"id": name} for name in ids or "---"]
    windows = [{"index": 40 + k, "chunked_index": part} for k, part in enumerate([0, 1, 1])]
    rows = [
        row | window | own for row, window, own in zip(topical_rows(golden, [400] * 3), windows, named, strict=True)
    ]
    score_once(save_rows(rows), "--signals", "cds", output=tmp_path / "run")
    run = Run.read(tmp_path / "run")
    shown = top_documents(TopSettings(run=str(run.folder))).documents
    assert len({document.id for document in shown}) == 3
    for document in shown:
        (chosen,) = choose_documents(run, InspectSettings(run=str(run.folder), id=(document.id,)))
        assert chosen.position == document.position


def test_a_valid_file_is_not_written_again(ladm: Any, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ladm("inspect", scored, "--top", "2").exit_code == 0
    before = {path: path.read_bytes() for path in (scored / "inspected").iterdir()}
    (scored / "inspected" / f"000000000.json.{'0f' * 16}.partial").write_text("")
    first, second = list(before)
    first.write_bytes(before[first][:-20])
    made: list[Any] = []
    monkeypatch.setattr("ladm.explain.explainer.Explainer._decompose", lambda self, *_: made.append(self) or 1 / 0)
    assert "unexpected ZeroDivisionError" in ladm("inspect", scored, "--top", "2").stderr
    monkeypatch.undo()
    assert len(made) == 1
    result = ladm("inspect", scored, "--top", "2")
    assert result.stdout.count(".json\n") == 2
    assert {path: path.read_bytes() for path in (scored / "inspected").iterdir()} == before
    second.write_text(json.dumps(json.loads(second.read_text()) | {"made_with": {"dtype": "bfloat16"}}))
    assert ladm("inspect", scored, "--top", "2").exit_code == 0
    assert second.read_bytes() == before[second]


def test_a_stopped_inspection_keeps_its_finished_files(
    ladm: Any, scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from ladm.explain import explainer as explanation

    real = explanation.Explainer._decompose

    def decompose(self: Any, ids: Any, grid: Any, position: int) -> Any:
        if (scored / "inspected").exists() and any((scored / "inspected").glob("*.json")):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, ids, grid, position)

    monkeypatch.setattr(explanation.Explainer, "_decompose", decompose)
    result = ladm("inspect", scored, "--top", "3")
    assert result.exit_code == 143
    assert result.stderr.splitlines()[-1] == (
        f"ladm: stopped by SIGTERM; finished rows are safe in {scored}/inspected; run the same command again to "
        "continue"
    )
    assert len(inspected(scored)) == result.stdout.count(".json\n") == 1


def test_the_number_of_documents_is_limited(ladm: Any, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "ladm: at most 100 documents can be inspected at once; choose fewer\n"
    for options in (("--top", "101"), ("--top", "60", "--bottom", "41"), ("--bottom", "9" * 20)):
        result = ladm("inspect", scored, *options)
        assert (result.exit_code, result.stderr) == (2, message)
    monkeypatch.setattr("ladm.explain.chosen_documents.MOST_INSPECTED", 1)
    result = ladm("inspect", scored, "--top", "2")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: more than 1 documents of {scored} have these indices or ids; choose others, or use --top\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(
            {"reduce": "mean", "layers": [1, 2], "heads": None, "weights": [0.25, 0.75]}, marks=pytest.mark.slow
        ),
        pytest.param({"reduce": "median", "layers": [0, 1, 2], "heads": None, "weights": None}, marks=pytest.mark.slow),
        {"reduce": "geometric", "layers": [0, 2], "heads": ["L0H1", "L2H0", "L2H3"], "weights": None},
    ],
)
def test_scores_of_profiles_are_decomposed(
    ladm: Any, scored: Path, talking: Path, tmp_path: Path, score: dict[str, Any]
) -> None:
    identity = read_object(scored / "run.json")
    settings = identity["settings"] | {"ablation": "no-std", "n": 6}
    profile = {"format": 1, "model": identity["model"], "settings": settings, "length_tokens": 700, "score": score}
    (tmp_path / "p.yaml").write_text(json.dumps(profile))
    rows, common = str(tmp_path / "rows"), ("--model", talking, "--dtype", "float32", "--device", "cpu")
    profiled = ("--profile", tmp_path / "p.yaml")
    run, forms = tmp_path / "profiled", tmp_path / "forms"
    # With n 6 a form without sigma that is scored at once has a span more than one that is rescored.
    assert ladm("score", rows, *common, *profiled, "--record", "heads", "--output", run).exit_code == 0
    method = ("--span-tokens", "16", "--n", "6", "--record", "forms")
    assert ladm("score", rows, *common, *method, "--output", forms).exit_code == 0
    assert ladm("rescore", forms, *profiled, "--output", tmp_path / "again").exit_code == 0
    for folder in (run, tmp_path / "again"):
        result = ladm("inspect", folder, "--top", "1")
        assert result.exit_code == 0, result.output
        (one,) = inspected(folder)
        assert one["score_here"] == pytest.approx(one["score"], rel=1e-6)
        assert sum(map(sum, one["part"])) == pytest.approx(one["score"], rel=1e-4)
        names = score["heads"] or [f"L{layer}" for layer in score["layers"]]
        assert [column["name"] for column in one["columns"]] == names
        assert sum(one["pairs"][0]["later"]["weights"]) == pytest.approx(one["pairs"][0]["part"], rel=1e-4)


def test_a_model_without_a_tokenizer_shows_no_text(score_once: Any, ladm: Any, short_rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    score_once(short_rows, output=run)
    result = ladm("inspect", run, "--top", "1")
    assert (
        "warning   the model's folder has no tokenizer: positions will be shown without their text\n" in result.stderr
    )
    (one,) = inspected(run)
    assert (one["excerpt"], one["pairs"][0]["later"]["tokens"]) == ("", [])
    assert ladm("report", run).exit_code == 0
    assert "(no text: the model has no tokenizer)" in (run / "report.html").read_text()


def test_error_messages_of_inspect(ladm: Any, scored: Path, golden: Any, save_rows: Any, tmp_path: Path) -> None:
    ids = topical_rows(golden, [700, 512, 700, 650, 512, 700, 512])
    other = save_rows([row | {"index": row["index"] + 1} for row in ids], "other")
    renamed = save_rows([row | {"meta": {"pile_set_name": "x"}} for row in ids], "renamed")
    reversed_ids = save_rows([row | {"input_ids": row["input_ids"][::-1]} for row in ids], "reversed")
    fewer = save_rows(ids[:-1], "fewer")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "talking", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    top = ("--top", "1")
    cases = {
        (*top, "--rows", other): "ladm: {rows} are not the rows of the run: row {k} is another document",
        (*top, "--rows", renamed): "ladm: {rows} are not the rows of the run: row {k} is another document",
        (*top, "--rows", reversed_ids): "ladm: row {k} of {rows} has the score ",
        (*top, "--rows", "absent"): "ladm: no such data set: absent",
        (
            *top,
            "--rows",
            fewer,
        ): "ladm: {rows} has 6 rows, but {run} scored 7; give --rows the rows that it scored",
        (
            *top,
            "--model",
            copy,
        ): "ladm: {model} is not the model that scored {run}; give that model's folder with --model",
    }
    first = read_lines(scored / "sorted_by_score.jsonl")[0]["index"]
    for options, message in cases.items():
        result = ladm("inspect", scored, *options)
        wanted = message.format(rows=options[-1], run=scored, k=first, model=copy)
        assert (result.exit_code, result.stderr.splitlines()[-1][: len(wanted)]) == (1, wanted)
    assert not inspected(scored)
    (tmp_path / "rows").rename(tmp_path / "moved")
    result = ladm("inspect", scored)
    assert result.exit_code == 1
    assert result.stderr.endswith("; give their new path with --rows\n")
    assert ladm("inspect", scored, "--rows", tmp_path / "moved").exit_code == 0
    (tmp_path / "talking").rename(tmp_path / "walking")
    assert ladm("inspect", scored).stderr.endswith("; give its new path with --model\n")
    result = ladm("inspect", scored, "--top", "0")
    assert (result.exit_code, result.stderr) == (2, "ladm: nothing to inspect: give --top, --bottom or --id\n")
    assert ladm("inspect", scored, "--bottom", "-1").stderr == "ladm: --bottom must be at least 0, not -1\n"
    (scored / "scores.parquet").unlink()
    assert ladm("inspect", scored).exit_code == 3


def test_overwrite_removes_the_inspected_documents(ladm: Any, scored: Path, talking: Path) -> None:
    assert ladm("inspect", scored).exit_code == 0
    assert ladm("report", scored).exit_code == 0
    assert ladm("verify", scored).exit_code == 0
    again = ("score", scored.parent / "rows", *SMALL, "--model", talking, "--output", scored, "--overwrite")
    (scored / "inspected" / "mine").write_text("")
    assert f"{scored} holds more than a run (inspected/mine)" in ladm(*again).stderr
    (scored / "inspected" / "mine").unlink()
    page = (scored / "report.html").read_text()
    (scored / "report.html").write_text("mine")
    assert f"{scored} holds more than a run (report.html)" in ladm(*again).stderr
    (scored / "report.html").write_text(page)
    assert ladm(*again).exit_code == 0
    assert not (scored / "inspected").exists()
    assert not (scored / "report.html").exists()


class Pieces:
    """A tokenizer of bytes."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode(errors="replace")


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    ids = list("aé€z".encode())
    assert spell(Pieces(), ids) == ["a", "", "é", "", "", "€", "z"]
    assert "".join(spell(Pieces(), ids[:-2])) == "aé\ufffd"
    assert spell(Pieces(), ids[2:]) == ["", "", "", "€", "z"]
    assert spell(Pieces(), []) == []


def test_whole_bytes_are_distinguished_from_the_middle_of_a_character() -> None:
    """As Llama's tokenizer does it: a run of bytes that is not whole is no text at all."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"<0x{k:02X}>": k for k in range(256)} | {"\u2581cat": 256, "\u2581big": 257, "<unk>": 258}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    ids = [257, *"\u6587\u5b57".encode(), 256]
    assert spell(tokenizer, ids) == ["big", "", "", "\u6587", "", "", "\u5b57", " cat"]
    assert spell(tokenizer, ids[2:]) == ["", "", "", "", "\u5b57", " cat"]
