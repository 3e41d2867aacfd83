"""Scores as steps of other pipelines: datatrove's local executor, Ray Data on a local cluster, NeMo Curator's shape."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import ladm
from ladm.corpus.preparation.tokenization import load_tokenizer
from ladm.errors import LadmError
from ladm.integrations.scoring import LazyScorer, require_model
from support.commands import run_script
from support.files import read_lines
from support.jobs import text_of
from support.paths import ROOT

LENGTH = 300
SETTINGS = {"dtype": "float32", "device": "cpu", "span_tokens": 8}
TEXTS = [text_of(k, 320) for k in range(5)] + [text_of(9, 40)]


@pytest.fixture
def expected(talking: Path) -> list[float | None]:
    """The scores of `ladm.Scorer`."""
    tokenizer = load_tokenizer(str(talking), bos=None)
    ids = [cut.windows[0].ids if cut.windows else [] for cut in tokenizer.cut(TEXTS, LENGTH, most_windows=1)]
    scores = [row.score for row in ladm.Scorer(talking, **SETTINGS).score([row for row in ids if len(row)])]
    return [*scores, None]


def test_a_text_is_scored_as_in_memory(talking: Path, expected: list[float | None]) -> None:
    scorer = LazyScorer(str(talking), length=LENGTH, settings=SETTINGS)
    # No model is loaded before a text is scored, and none travels to another process.
    copy = pickle.loads(pickle.dumps(scorer))
    found = copy.score(TEXTS)
    assert [row.score for row in found] == expected
    assert [row.tokens for row in found] == [LENGTH] * 5 + [40]
    assert found[-1].error == "too_short: 40 of 300 tokens"
    assert scorer._scorer is None
    assert pickle.loads(pickle.dumps(copy))._scorer is None
    # Bytes are decoded, and what is no text is named with the word of `ladm prepare`.
    odd = copy.score([TEXTS[0].encode(), None, float("nan"), 5, TEXTS[1].encode() + b"\xff", ""])
    assert [(row.score, row.tokens, row.error) for row in odd] == [
        (expected[0], LENGTH, None),
        (None, None, "no_text: there is no text"),
        (None, None, "no_text: there is no text"),
        (None, None, "not_text: the text is not a string"),
        (None, None, "bad_text: the text is not valid Unicode"),
        (None, 0, "too_short: 0 of 300 tokens"),
    ]
    # What the tokenizer would refuse costs the other texts nothing.
    half = copy.score([TEXTS[0], TEXTS[1] + "\ud83d", TEXTS[2]])
    assert [row.score for row in half] == [expected[0], None, expected[2]]
    assert (half[1].tokens, half[1].error) == (None, "bad_text: the text is not valid Unicode")
    for length, named in ((0, "0"), (512.0, "512.0"), ("512", "'512'")):
        with pytest.raises(LadmError, match=rf"^length must be a whole number of at least 1, not {named}$"):
            LazyScorer("model", length=length, settings={})  # type: ignore[arg-type]
        with pytest.raises(LadmError, match=rf"^length must be a whole number of at least 1, not {named}$"):
            require_model(talking, length=length)  # type: ignore[arg-type]
    for refuses in (require_model, partial(LazyScorer, settings={})):
        with pytest.raises(LadmError, match="^model must be a name or a path, not None$"):
            refuses(None, length=512)  # type: ignore[arg-type]


def test_a_text_that_is_too_long_to_be_tokenised_costs_the_others_nothing(
    talking: Path, expected: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.preparation.encoding.MOST_UNBROKEN_CHARACTERS", 10_000)
    scorer = LazyScorer(str(talking), length=LENGTH, settings=SETTINGS)
    short, long = scorer.score([TEXTS[0], "x" * 10_001])
    assert (short.score, long.score, long.tokens) == (expected[0], None, None)
    assert long.error == (
        "unbroken: the text is too long to be tokenised at once, and the tokenizer cannot be given parts"
    )


def test_statistics_of_texts_are_those_of_a_run(talking: Path, tmp_path: Path) -> None:
    """With its counts of tokens; each text has a beginning that is no row, so that the row's own text counts."""
    from ladm.integrations.batches import LadmScore

    texts = [text + " w1234 0 1 2 3" for text in TEXTS]
    rows = ladm.prepare(
        [{"text": text, "domain": "d"} for text in texts], tokenizer=talking, length=LENGTH, output=tmp_path / "rows"
    )
    run = ladm.score(rows, model=talking, output=tmp_path / "run", **SETTINGS)
    names = ["gzip_ratio", "far_rare", "unigram_entropy", "repeated_4grams", "repeated_13grams",
             "characters_per_token", "digits"]  # fmt: skip
    stored = run.scores(["position", "score", *names]).sort_by("position").to_pylist()
    settings = SETTINGS | {"signals": ["cds", "text"], "unigrams": tmp_path / "run" / "unigrams.npy"}
    step = LadmScore(talking, length=LENGTH, **settings)
    made = step(pa.table({"text": texts}))
    assert made.column_names == ["text", "ladm_score", "ladm_tokens", "ladm_error", *(f"ladm_{name}" for name in names)]
    assert len(stored) == 5
    for row, found in zip(stored, made.to_pylist(), strict=False):
        assert found["ladm_score"] == row["score"]
        assert [found[f"ladm_{name}"] for name in names] == pytest.approx([row[name] for name in names], rel=1e-6)
    assert made["ladm_digits"].to_pylist()[5] is None
    # Without the counts of tokens there is no such column, rather than one without values.
    without = LazyScorer(talking, length=LENGTH, settings=SETTINGS | {"signals": "text"})
    assert without.columns[3:] == tuple(f"ladm_{name}" for name in names if name != "far_rare")
    (row,) = without.score(texts[:1])
    assert row.signals["ladm_digits"] == pytest.approx(stored[0]["digits"], rel=1e-6)
    arrays = step({"text": texts})
    assert arrays["ladm_gzip_ratio"][:5].tolist() == made["ladm_gzip_ratio"].to_pylist()[:5]
    assert str(arrays["ladm_gzip_ratio"][5]) == "nan"


def test_a_data_set_of_hugging_face_is_mapped(talking: Path, expected: list[float | None]) -> None:
    import datasets
    from datasets.fingerprint import Hasher

    from ladm.integrations.batches import LadmScore

    step = LadmScore(talking, length=LENGTH, **SETTINGS)
    # By the hash of the step `datasets` knows a result that it has cached.
    unused = Hasher.hash(step)
    data = datasets.Dataset.from_dict({"text": TEXTS, "k": range(6)})
    scored = data.with_format("arrow").map(step, batched=True, batch_size=2).with_format(None)
    assert scored["ladm_score"][:] == expected
    # Only in the last batch there is an error.
    assert scored["ladm_error"][:] == [None] * 5 + ["too_short: 40 of 300 tokens"]
    assert scored["k"][:] == list(range(6))
    assert Hasher.hash(step) == unused
    streamed = data.to_iterable_dataset().with_format("arrow").map(step, batched=True, batch_size=2)
    assert [value for table in streamed.iter(batch_size=3) for value in table["ladm_score"].to_pylist()] == expected
    with pytest.raises(LadmError, match=r'not an object of type LazyBatch; .* with_format\("arrow"\)$'):
        data.map(step, batched=True)


def test_a_batch_of_another_kind_is_named_without_its_content(talking: Path, expected: list[float | None]) -> None:
    from ladm.integrations.batches import LadmScore

    step = LadmScore(talking, length=LENGTH, **SETTINGS)
    binary = pa.RecordBatch.from_pydict({"text": [text.encode() for text in TEXTS]})
    found = step(binary)
    assert isinstance(found, pa.RecordBatch)
    assert found.schema.names == ["text", "ladm_score", "ladm_tokens", "ladm_error"]
    assert found["ladm_score"].to_pylist() == expected
    forms = "a batch must be a table of pyarrow, a dictionary of arrays or a DataFrame of pandas"
    for batch, kind in (([{"text": "secret"}], "list"), (None, "NoneType"), ("secret", "str")):
        with pytest.raises(LadmError) as refused:
            step(batch)
        remedy = 'choose it with batch_format, or for `datasets` with_format("arrow")'
        assert str(refused.value) == f"{forms}, not an object of type {kind}; {remedy}"
    with pytest.raises(LadmError, match="^text of a batch must be a list or an array of texts, not one text$"):
        step({"text": TEXTS[0]})
    with pytest.raises(LadmError, match="^a batch has no column text; give text_key, one of body$"):
        step(pa.table({"body": TEXTS}))
    for names in (["text", "text"], ["text", "ladm_score", "ladm_score"]):
        doubled = pa.table([pa.array(TEXTS)] * len(names), names=names)
        for batch in (doubled, doubled.to_pandas()):
            with pytest.raises(LadmError, match=f"^a batch has several columns {names[-1]}; rename them"):
                step(batch)


def test_what_would_score_nothing_is_found_before_a_framework_starts(talking: Path, tmp_path: Path) -> None:
    with pytest.raises(LadmError, match=f"^--unigrams {tmp_path}/none.npy does not exist$"):
        require_model(talking, length=LENGTH, signals="text", unigrams=tmp_path / "none.npy")
    np.save(tmp_path / "other.npy", np.zeros(7, dtype=np.int64))
    with pytest.raises(LadmError, match=r"other.npy has 7 tokens, but the model's vocabulary has [\d,]+$"):
        require_model(talking, length=LENGTH, signals="text", unigrams=tmp_path / "other.npy")
    with pytest.raises(LadmError, match="^length 300 leaves no span to score with these settings; give a smaller"):
        require_model(talking, length=LENGTH, span_tokens=200)
    for signal, length in (("prolong", 200), ("context-gain", 10)):
        with pytest.raises(LadmError, match=f"^length {length} is too short for the signal {signal}; give a greater"):
            require_model(talking, length=length, signals=signal)
    with pytest.raises(LadmError, match="^length 9,000 is beyond the 8,192 positions"):
        require_model(talking, length=9000, signals=["text", "context-gain"])
    require_model(talking, length=LENGTH, signals="context-gain")
    require_model(talking, length=LENGTH, span_tokens=8)
    # These work without a position for each token.
    require_model(talking, length=9000, signals="text")
    require_model(talking, length=9000, signals="prolong")


def test_layers_are_checked_for_rows_of_the_length_before_a_framework_starts(talking: Path) -> None:
    with pytest.raises(LadmError, match="^--layers names layer 7, but .* has layers 0-2$"):
        require_model(talking, length=LENGTH, span_tokens=8, layers="7")
    config = talking / "config.json"
    changed = json.loads(config.read_text()) | {"model_type": "mistral", "architectures": ["MistralModel"]}
    config.write_text(json.dumps(changed | {"sliding_window": LENGTH}))
    with pytest.raises(LadmError, match="layers 0-2 of this mistral model see only a window"):
        require_model(talking, length=LENGTH + 1, span_tokens=8)
    # A window that is as long as the rows hides nothing of them.
    require_model(talking, length=LENGTH, span_tokens=8)
    found = LazyScorer(talking, length=LENGTH, settings=SETTINGS).score(TEXTS[:1])
    config.write_text(json.dumps(changed | {"sliding_window": None}))
    assert found == LazyScorer(talking, length=LENGTH, settings=SETTINGS).score(TEXTS[:1])
    assert found[0].score is not None


def test_statistics_of_texts_need_no_weights(talking: Path) -> None:
    (talking / "model.safetensors").unlink()
    require_model(talking, length=LENGTH, signals="text")
    found = LazyScorer(talking, length=LENGTH, settings={"signals": "text"}).score(TEXTS[:1])
    assert found[0].signals["ladm_digits"] == 0
    with pytest.raises(LadmError, match=r"no \*.safetensors there$"):
        require_model(talking, length=LENGTH, span_tokens=8)


def test_there_must_be_a_text_for_each_row(talking: Path) -> None:
    scorer = ladm.Scorer(talking, **SETTINGS)
    ids = [[5] * 300, [6] * 300]
    kinds = ((iter(["a", "b"]), "list_iterator"), (5, "int"), ({"a": 1, "b": 2}, "dict"), (np.array("a"), "ndarray"))
    found = [(["a"], "1"), ("ab", "a single text"), *((one, f"an object of type {kind}") for one, kind in kinds)]
    for texts, named in found:
        with pytest.raises(LadmError, match=f"^texts must be a list with the text of each of the 2 rows, not {named}$"):
            scorer.score(ids, texts=texts)
    for text, kind in ((5, "int"), (["b"], "list")):
        with pytest.raises(
            LadmError, match=f"^texts must hold a text or None for each row; that of row 1 is of type {kind}$"
        ):
            scorer.score(ids, texts=["a", text])
    # Columns of tables, bytes, and what stands for no text there.
    with ladm.Scorer(talking, **SETTINGS, signals="text") as statistics:
        expected = statistics.score(ids, texts=["a1", None])
        for texts in (pa.array(["a1", None]), pa.array([b"a1", None]), np.array(["a1", None]), [b"a1", float("nan")]):
            assert statistics.score(ids, texts=texts) == expected


@pytest.fixture
def datatrove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executor starts a manager process, by default with a fork, which can hang where other tests left threads."""
    pytest.importorskip("datatrove")
    import multiprocess

    monkeypatch.setattr(multiprocess, "Manager", multiprocess.get_context("spawn").Manager)


@pytest.mark.usefixtures("datatrove")
def test_datatrove_from_jsonl_to_jsonl(talking: Path, expected: list[float | None], tmp_path: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    from ladm.integrations.datatrove import LadmScore

    (tmp_path / "in").mkdir()
    for part, chosen in enumerate((TEXTS[:3], TEXTS[3:])):
        lines = [json.dumps({"text": text, "id": str(3 * part + k)}) + "\n" for k, text in enumerate(chosen)]
        (tmp_path / "in" / f"{part}.jsonl").write_text("".join(lines))
    pipeline = [
        JsonlReader(str(tmp_path / "in")),
        LadmScore(str(talking), length=LENGTH, batch_documents=2, **SETTINGS),
        JsonlWriter(str(tmp_path / "out"), compression=None),
    ]
    LocalPipelineExecutor(pipeline, tasks=2, workers=1, logging_dir=str(tmp_path / "logs")).run()
    written = [row for path in sorted((tmp_path / "out").iterdir()) for row in read_lines(path)]
    found = {int(row["id"]): row["metadata"] for row in written}
    assert [found[k]["ladm_score"] for k in range(6)] == expected
    assert found[5]["ladm_error"] == "too_short: 40 of 300 tokens"
    assert [found[k]["ladm_tokens"] for k in range(6)] == [LENGTH] * 5 + [40]
    stats = json.loads((tmp_path / "logs" / "stats.json").read_text())
    assert stats[1]["stats"]["scored"] == 5


@pytest.mark.usefixtures("datatrove")
def test_scored_documents_of_datatrove_become_megatron_files(talking: Path, tmp_path: Path) -> None:
    """A shard in FinePDFs' columns through datatrove: read, scored, the better half written, then token files."""
    from click.testing import CliRunner
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import JsonlWriter

    from ladm.cli.main import main
    from ladm.integrations.datatrove import LadmScore
    from support.jobs import write_finepdfs
    from support.subset_formats import read_megatron

    (tmp_path / "in").mkdir()
    write_finepdfs(tmp_path / "in" / "0.parquet", words=520)
    pipeline = [
        ParquetReader(str(tmp_path / "in")),
        LadmScore(str(talking), length=512, **SETTINGS),
        LambdaFilter(lambda document: document.metadata["ladm_score"] is not None),
        JsonlWriter(str(tmp_path / "out"), compression=None),
    ]
    LocalPipelineExecutor(pipeline, tasks=1, logging_dir=str(tmp_path / "logs")).run()
    words = ["run", tmp_path / "out" / "00000.jsonl", "--model", talking, "--tokens", "2k", "-o", tmp_path / "job"]
    flags = ["--format", "megatron", "--domain-key", "metadata.language", "--length", "512", "--span-tokens", "8"]
    more = ["--dtype", "float32", "--device", "cpu"]
    result = CliRunner().invoke(main, [str(word) for word in [*words, *flags, *more]])
    assert result.exit_code == 0, result.output
    assert [len(ids) for ids in read_megatron(tmp_path / "job" / "subset" / "train")] == [512] * 3
    # The score of datatrove's step travels with the document, and is that of the run.
    scored = {row["id"]: row for row in read_lines(tmp_path / "out" / "00000.jsonl")}
    run = read_lines(tmp_path / "job" / "scores" / "sorted_by_score.jsonl")
    assert len(run) == 12
    for row in run:
        assert row["score"] == scored[row["id"]]["metadata"]["ladm_score"]


@pytest.mark.parametrize(("example", "module"), [("datatrove_pipeline", "datatrove"), ("ray_data_scores", "ray")])
def test_the_examples_name_a_wrong_model_in_one_line(talking: Path, tmp_path: Path, example: str, module: str) -> None:
    pytest.importorskip(module)
    script = ROOT / "examples" / f"{example}.py"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "d.jsonl").write_text('{"text": "a b c"}\n')
    wrong = tmp_path / "modle"
    for model, length, message in (
        (wrong, 512, f"no such tokenizer: {wrong} is neither a folder nor a Hub id such as org/name"),
        (talking, 10**6, f"length 1,000,000 is beyond the 8,192 positions of {talking}"),
    ):
        # Printed by Python itself, with the exit code 1.
        with pytest.raises(SystemExit) as ended:
            run_script(script, model, tmp_path / "in", tmp_path / "out", length)
        assert ended.value.code == f"{script}: {message}"


def test_batches_of_ray_data_need_no_ray(talking: Path, expected: list[float | None]) -> None:
    from ladm.integrations.batches import LadmScore

    step = LadmScore(str(talking), length=LENGTH, text_key="body", **SETTINGS)
    table = step(pa.table({"body": TEXTS, "k": range(6)}))
    assert table.column_names == ["body", "k", "ladm_score", "ladm_tokens", "ladm_error"]
    assert table["ladm_score"].to_pylist() == expected
    assert table["ladm_error"].to_pylist() == [None] * 5 + ["too_short: 40 of 300 tokens"]
    import numpy as np

    arrays = step({"body": np.array(TEXTS, dtype=object)})
    assert arrays["ladm_score"][:5].tolist() == expected[:5]
    assert np.isnan(arrays["ladm_score"][5])
    assert arrays["ladm_error"].tolist() == [""] * 5 + ["too_short: 40 of 300 tokens"]
    # As arrays, so in the format of pandas; what an earlier step has added is replaced.
    frame = step(pa.table({"body": TEXTS, "ladm_score": [0.0] * 6}).to_pandas())
    assert frame.columns.tolist() == ["body", "ladm_score", "ladm_tokens", "ladm_error"]
    assert frame["ladm_score"][:5].tolist() == expected[:5]
    again = step(table)
    assert again.sort_by("k") == table.sort_by("k")
    with pytest.raises(LadmError, match="a batch has no column body; give text_key, one of text, k"):
        step(pa.table({"text": TEXTS, "k": range(6)}))
    assert sorted(again.column_names) == sorted(table.column_names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"spantokens": 3}, "{} has no setting spantokens; did you mean span_tokens?"),
     ({"lenghts": 3}, "{} has no setting lenghts; did you mean length?"),
     ({"span_tokens": 0}, "--span-tokens must be at least 1, not 0"),
     ({"dtype": "f32"}, "--dtype 'f32' is not auto or float32 or bfloat16 or float16"),
     ({"profile": "nowhere.yaml"}, "profile nowhere.yaml: No such file or directory"),
     ({"config": "nowhere.yaml"}, "nowhere.yaml: No such file or directory")],
)  # fmt: skip
def test_settings_are_checked_before_a_worker_starts(settings: dict[str, Any], message: str) -> None:
    """The model does not exist: none is loaded for the check."""
    from ladm.integrations.batches import LadmScore

    calls: dict[str, Any] = {"LadmScore": LadmScore, "require_model": require_model}
    for name, call in calls.items():
        with pytest.raises(LadmError) as caught:
            call("no/model", length=LENGTH, **settings)
        assert message.format(name) in str(caught.value)
    with pytest.raises(LadmError, match=r"^LadmScore has no setting text_kee; did you mean text_key\?$"):
        calls["LadmScore"]("no/model", length=LENGTH, text_kee="x")


def test_settings_of_the_step_of_datatrove_are_checked_at_once() -> None:
    pytest.importorskip("datatrove")
    from ladm.integrations.datatrove import LadmScore

    step: Any = LadmScore
    for settings, message in (
        ({"batch_document": 3}, "^LadmScore has no setting batch_document; did you mean batch_documents"),
        ({"batch_documents": 0}, "^batch_documents must be a whole number of at least 1, not 0$"),
        ({"reduce": "men"}, "^--reduce 'men' is not"),
    ):
        with pytest.raises(LadmError, match=message):
            step("no/model", length=LENGTH, **settings)


@pytest.fixture
def ray_cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), before or ""])
    # Not a cluster that another test has started on this machine.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_data_on_a_local_cluster(ray_cluster: Any, talking: Path, expected: list[float | None]) -> None:
    from ladm.integrations.batches import LadmScore

    documents = ray_cluster.data.from_items([{"text": text, "k": k} for k, text in enumerate(TEXTS)])
    scored = documents.map_batches(
        LadmScore,
        fn_constructor_args=(str(talking),),
        fn_constructor_kwargs={"length": LENGTH, **SETTINGS},
        compute=ray_cluster.data.ActorPoolStrategy(size=1),
        batch_size=4,
        batch_format="pyarrow",
    )
    found = sorted(scored.take_all(), key=lambda row: row["k"])
    assert [row["ladm_score"] for row in found] == expected
    assert found[5]["ladm_error"] == "too_short: 40 of 300 tokens"


@pytest.mark.usefixtures("datatrove")
def test_the_example_of_datatrove(talking: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"text": text, "id": str(k)}) + "\n" for k, text in enumerate(TEXTS)]
    (tmp_path / "in" / "x.jsonl").write_text("".join(lines))
    run_script(ROOT / "examples" / "datatrove_pipeline.py", talking, tmp_path / "in", tmp_path / "out", LENGTH)
    (path,) = (tmp_path / "out" / "scored").iterdir()
    assert [row["id"] for row in read_lines(path)] == list("01234")


def test_the_stage_of_curator(talking: Path, expected: list[float | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """NeMo Curator itself needs a GPU to install; its three classes are stood in for by their documented fields."""
    import importlib.util
    from dataclasses import dataclass, field

    import pandas as pd

    class ProcessingStage:
        def __class_getitem__(cls, _: Any) -> type:
            return cls

    @dataclass
    class DocumentBatch:
        task_id: str
        dataset_name: str
        data: Any
        _stage_perf: list[Any] = field(default_factory=list)
        _metadata: dict[str, Any] = field(default_factory=dict)

        def to_pandas(self) -> Any:
            return self.data

    @dataclass
    class Resources:
        cpus: float = 1.0
        gpus: float = 0.0

    for name, content in {
        "nemo_curator": {}, "nemo_curator.stages": {}, "nemo_curator.stages.base": {"ProcessingStage": ProcessingStage},
        "nemo_curator.stages.resources": {"Resources": Resources},
        "nemo_curator.tasks": {"DocumentBatch": DocumentBatch},
    }.items():  # fmt: skip
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("curator_stage", ROOT / "examples" / "curator_stage.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "curator_stage", example)
    spec.loader.exec_module(example)
    stage = example.LadmScoreStage(model=str(talking), length=LENGTH, settings=SETTINGS)
    stage.setup()
    batch = DocumentBatch("t", "d", pd.DataFrame({"text": TEXTS}), _metadata={"source_files": ["x"]})
    made = stage.process(batch)
    assert (made.task_id, made._metadata) == ("t", {"source_files": ["x"]})
    assert made.data["ladm_score"].tolist()[:5] == expected[:5]
    assert stage.outputs()[1] == ["text", "ladm_score", "ladm_tokens", "ladm_error"]
