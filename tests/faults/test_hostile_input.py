"""Input made to do harm: files that unpack without end, weights elsewhere, YAML that stands for billions, odd names."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from click.testing import Result

from ladm.corpus.files import compressed as compressed_files
from ladm.errors import LadmError, UsageError, printable
from ladm.modeling.model_files import model_folder
from ladm.selection.quota_weights import read_quota
from ladm.settings.profiles import read_profile
from ladm.settings.yaml_text import load_yaml
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows
from support.word_tokenizers import tokenizer_folder

Command = Callable[..., Result]
NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj\u2066\r\x08\x7f"
CONTROL = [chr(k) for k in (*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x2066)]


def require_clean(*texts: str) -> None:
    for text in texts:
        assert not [c for c in CONTROL if c in text], text


def good_lines(count: int) -> str:
    words = [" ".join(f"w{(k * n) % 50}" for n in range(40)) for k in range(1, count + 1)]
    return "".join(json.dumps({"text": text, "meta": {"pile_set_name": "d"}}) + "\n" for text in words)


@pytest.mark.parametrize(("name", "what"), [("bomb.jsonl.gz", "it has a line of more"), ("bomb.txt.gz", "it has more")])
def test_a_file_that_unpacks_to_one_endless_document_is_one_bad_file(
    ladm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setattr(compressed_files, "MOST_DOCUMENT_BYTES", 1 << 20)
    (tmp_path / "good.jsonl").write_text(good_lines(3))
    bomb = tmp_path / name
    # 64 times the limit in 64 KiB.
    bomb.write_bytes(gzip.compress(b"x" * (64 << 20)))
    assert bomb.stat().st_size < 1 << 17
    words = ("--tokenizer", tokenizer_folder(tmp_path / "tokenizer"), "--length", "32", "--domain", "d")
    result = ladm("prepare", tmp_path / "good.jsonl", bomb, *words, "--output", tmp_path / "rows")
    assert result.exit_code == 0, result.output
    assert f"cannot read {bomb}: {what}" in result.output
    refused = ladm("prepare", bomb, *words, "--max-bad-files", "0", "--output", tmp_path / "none")
    assert refused.exit_code == 74
    assert str(bomb) in refused.stderr


def test_a_zst_file_is_unpacked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten kilobytes of Zstandard may stand for 300 MiB."""
    bomb = tmp_path / "bomb.jsonl.zst"
    with bomb.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as writer:
        for _ in range(300):
            writer.write(b" " * (1 << 20))
    unpack, sizes = compressed_files._ZstdReader._decompress, list[int]()

    def measured(self: Any, chunk: bytes) -> bytes:
        part = unpack(self, chunk)
        sizes.append(len(part))
        return part

    monkeypatch.setattr(compressed_files._ZstdReader, "_decompress", measured)
    with compressed_files.open_unpacked(str(bomb)) as file:
        assert sum(len(part) for part in iter(lambda: file.read(1 << 20), b"")) == sum(sizes) == 300 << 20
    assert max(sizes) <= compressed_files.MOST_DOCUMENT_BYTES


@pytest.mark.parametrize("shard", ["../evil.safetensors", "sub/evil.safetensors", "/absolute/evil.safetensors", "gone"])
def test_weights_that_an_index_names_are_in_the_folder_itself(tmp_path: Path, shard: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(GOLDEN, model)
    (model / "sub").mkdir()
    for path in (tmp_path / "evil.safetensors", model / "sub" / "evil.safetensors"):
        shutil.copy(GOLDEN / "model.safetensors", path)
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": shard}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LadmError) as caught:
        model_folder(str(model))
    message = "model.safetensors.index.json names weights that are not in the folder itself: "
    assert str(caught.value) == f"{model}: {message}{shard}"
    index["weight_map"] = {"a": "gone.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LadmError, match="gone.safetensors is missing, which model.safetensors.index.json names$"):
        model_folder(str(model))
    (model / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(LadmError, match=r"model.safetensors.index.json is not an index of weights$"):
        model_folder(str(model))


def test_an_index_does_not_choose_between_files_with_the_same_weight(tmp_path: Path) -> None:
    """Else the index, which is no part of a model's identity, would decide what is loaded."""
    from safetensors.numpy import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(GOLDEN, model)
    weights = load_file(GOLDEN / "model.safetensors")
    names = sorted(weights)
    (model / "model.safetensors").unlink()
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, held in parts.items():
        save_file({name: weights[name] for name in held}, model / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, held in parts.items() for name in held}

    def with_index(found: dict[str, str]) -> str:
        (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": found}))
        return str(model_folder(str(model)))

    assert with_index(weight_map) == str(model)
    with pytest.raises(LadmError, match=f"looks for {names[0]} in two.safetensors, which does not hold it$"):
        with_index(weight_map | {names[0]: "two.safetensors"})
    save_file({name: weights[name] for name in names[:2]}, model / "two.safetensors", metadata={"format": "pt"})
    with pytest.raises(LadmError, match=f"both one.safetensors and two.safetensors hold {names[0]}$"):
        with_index(weight_map)
    (model / "two.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(LadmError, match=r"two.safetensors cannot be read: .*; fetch it again$"):
        with_index(weight_map)


def laughs(top: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    return "\n".join([*lines, f"{top}: *a11"]) + "\n"


def test_yaml_whose_aliases_stand_for_billions_is_refused(ladm: Command, tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    path.write_text(laughs("score"))
    with pytest.raises(UsageError, match=r"is not YAML: its aliases stand for more than 100,000 values$"):
        read_profile(path)
    for text in (laughs("x"), "a: &a [*a]", "a: &a {b: *a}"):
        with pytest.raises(yaml.YAMLError):
            load_yaml(text)
    assert load_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    for flags in (("score", "rows", "--model", "m", "--output", "o"), ("select", "run", "--tokens", "1", "-o", "o")):
        result = ladm(*flags, "--config", path)
        assert (result.exit_code, "its aliases stand for" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "value",
    [
        "2024-13-45",
        '!!int ""',
        '!!float ""',
        "!!bool maybe",
        "!!timestamp noon",
        "9" * 5000,
        "[" * 600,
        f"0x{'F' * 5000}",
        f"[{'1:' * 3000}1]",
        f"{{0: 0{'7' * 6000}}}",
    ],
    ids=[
        "month 13",
        "no digits",
        "no number",
        "no switch",
        "no date",
        "5,000 digits",
        "600 brackets",
        "5,000 digits of 16",
        "3,000 digits of 60",
        "6,000 digits of 8",
    ],
)
def test_yaml_values_that_the_library_cannot_read(ladm: Command, tmp_path: Path, value: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"format: {value}\n")
    with pytest.raises(UsageError, match=r"is not YAML: .+"):
        read_profile(path)
    with pytest.raises(UsageError, match=r"^--quota .* is not YAML: .+"):
        read_quota(str(path))
    result = ladm("select", "run", "--tokens", "1", "--output", tmp_path / "subset", "--config", path)
    assert (result.exit_code, f"--config {path} is not YAML: " in result.stderr) == (2, True), result.stderr


def test_text_for_a_terminal() -> None:
    text = "plain ünïcode 文\n\tChapter\xa04.\u3000\u202fline"
    assert printable(text, kept="\n\t") == text
    assert printable("a\tb\x85c\u2028d") == "a?b?c?d"
    require_clean(printable(NASTY))


def test_no_control_character_of_the_data_reaches_the_terminal(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """In an id, a domain, a text, a column's name, the name of a file: in results, tables and errors."""
    data = topical_rows(golden, [400 + 8 * (k % 3) for k in range(12)])
    for row in data:
        row |= {
            "text": f"{NASTY} first line\nsecond",
            "id": f"{NASTY}{row['index']}",
            "index": f"i{NASTY}{row['index']}",
        }
        row |= {"meta": {"pile_set_name": f"{NASTY} {row['meta']['pile_set_name']}"}, "source": NASTY, NASTY: 1.5}
    data[3]["input_ids"] = data[3]["input_ids"][:20]
    rows, run = save_rows(data), tmp_path / "run"
    seen = [ladm("score", rows, *SMALL, "--output", run)]
    subset = ("--tokens", "1k", "--output", tmp_path / "subset")
    for words in (
        ("status", run), ("verify", run), ("top", run), ("top", run, "--worst"), ("select", run, *subset),
        ("compare", run), ("report", run), ("inspect", run, "--device", "cpu", "--top", "1"),
        ("rescore", run, "--reduce", "median", "--output", tmp_path / "again"),
    ):  # fmt: skip
        seen.append(ladm(*words))
        assert seen[-1].exit_code == 0, seen[-1].output
    for words in (
        ("top", run, "--domain", NASTY), ("top", run, "--domain-key", f"x{NASTY}"), ("top", run, "--by", NASTY),
        ("select", run, "--domain-key", f"x{NASTY}", "--tokens", "1k", "--output", tmp_path / "x"),
        ("status", tmp_path / NASTY), ("score", tmp_path / NASTY, *SMALL, "--output", tmp_path / "y"),
        ("score", rows, "--model", NASTY, "--output", tmp_path / "y"), ("inspect", run, "--id", NASTY),
    ):  # fmt: skip
        seen.append(ladm(*words))
        assert seen[-1].exit_code != 0, words
    # An edited file: whatever a message repeats of it.
    (run / "errors.jsonl").write_text(NASTY)
    identity = json.loads((run / "run.json").read_text())
    identity.pop("crc32")
    (run / "run.json").write_text(json.dumps(identity | {"about": identity["about"] | {"rows": NASTY, "model": NASTY}}))
    seen += [ladm("verify", run, "--deep"), ladm("inspect", run), ladm("report", run)]
    for result in seen:
        require_clean(result.stdout, result.stderr)
