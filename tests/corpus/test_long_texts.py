"""A text of many megabytes is tokenised in pieces: the same ids as at once, in a small part of the memory."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ladm.corpus.preparation import encoding, text_pieces
from ladm.corpus.preparation.text_pieces import find_breaks, pieces_of
from ladm.corpus.preparation.tokenization import Tokenizer as TextTokenizer
from ladm.corpus.preparation.tokenization import load_tokenizer

PARTS = [
    *("the", "quick", "xylophone", "Don't", "it's", "I'LL", "über", "naïve", "e\u0301te\u0301", "汉字很多", "日本語。"),
    *(" ", " ", " ", " a ", " B ", "  ", "   ", "\n", "\n", "\n\n", " \n", "\t", "\r\n", "\u00a0", "\u3000"),
    *(
        "12345",
        "3",
        "½",
        "foo_bar",
        "<s>",
        "</s>",
        "<mask>",
        "▁",
        "(x)",
        "a.b",
        "!!",
        "…",
        "”",
        "👍🏽",
        "ﬁ",
        "Å",
        "x y",
    ),
    *("end.\nThen", "词。\n又", ">", "</p>"),
]
CASES = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+CONTRACTION|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*CONTRACTION|"
    r"NUMBER| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = CASES.replace("CONTRACTION", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("NUMBER", r"\p{N}{1,3}")
TEKKEN = CASES.replace("CONTRACTION", "").replace("NUMBER", r"\p{N}")
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
    r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
"""The patterns that the tokenizers of GPT-4o, Mistral NeMo and DeepSeek 3 are published with."""
CORPUS = ["the quick xylophone and the naïve end. Then foo bar 12345 it's Don't 汉字很多 日本語。 </p> x y " * 20]


def _words(kind: str) -> Any:
    """The pre-tokenizer of a family of models, as its `tokenizer.json` has it."""
    of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2, long, short, marks = sorted(
        (pattern for pattern in text_pieces._WORDS if pattern.startswith(("'s", "(?i:"))),
        key=lambda pattern: (pattern[0] != "'", "{1,3}" not in pattern, "M" in pattern),
    )
    return {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "roberta": pre_tokenizers.ByteLevel(add_prefix_space=True),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        "split_gpt2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(gpt2), "isolated"), of_bytes]),
        "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(long), "isolated"), of_bytes]),
        "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(short), "isolated"), of_bytes]),
        "qwen3_5": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(marks), "isolated"), of_bytes]),
        "o200k": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(O200K), "isolated"), of_bytes]),
        "tekken": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(TEKKEN), "isolated"), of_bytes]),
        "deepseek": pre_tokenizers.Sequence(
            [*(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in DEEPSEEK), of_bytes]
        ),
        "metaspace": pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        "gemma": pre_tokenizers.Split(" ", "merged_with_previous"),
        "llama2": None,
    }[kind]


def _tokenizer(kind: str, folder: Path) -> str:
    """Train a tokenizer of a family of models on a few words, and save it."""
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    normalizer = {
        "llama2": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        "gemma": normalizers.Replace(" ", "▁"),
        "qwen2": normalizers.NFC(),
        "qwen3_5": normalizers.NFC(),
    }.get(kind)
    # Trained on words: no token has a letter before a space, as with SentencePiece.
    core.normalizer = normalizers.Replace(" ", "▁") if kind in ("llama2", "gemma") else normalizer
    words = _words(kind)
    core.pre_tokenizer = (
        pre_tokenizers.Metaspace(prepend_scheme="never") if kind in ("llama2", "gemma", "metaspace") else words
    )
    alphabet = [chr(k) for start in "aA" for k in range(ord(start), ord(start) + 26)] + ["▁"]
    of_bytes = kind not in ("llama2", "gemma", "metaspace")
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if of_bytes else alphabet,
    )  # fmt: skip
    core.train_from_iterator(CORPUS, trainer)
    if words is None:
        content = json.loads(core.to_str()) | {"pre_tokenizer": None}
        core = Tokenizer.from_str(json.dumps(content))
    else:
        core.pre_tokenizer = words
    if normalizer is not None:
        core.normalizer = normalizer
    if of_bytes:
        core.decoder = decoders.ByteLevel()
        core.post_processor = processors.ByteLevel(trim_offsets=kind in ("gpt2", "qwen2"), add_prefix_space=False)
    core.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>").save_pretrained(str(folder))
    return str(folder)


def _texts(seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(PARTS, k=draw.randrange(1, 300))) for _ in range(25)]


def windows(tokenizer: TextTokenizer, texts: list[str], length: int) -> list[Any]:
    """What is cut from each text, to compare."""
    return [
        (
            text.num_tokens,
            [(window.ids.tolist(), window.start_token, window.start, window.end) for window in text.windows],
        )
        for text in tokenizer.cut(texts, length, most_windows=None)
    ]


@pytest.mark.parametrize(
    "kind",
    [
        *("gpt2", "roberta", "llama3", "deepseek", "gemma", "llama2"),
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("smollm", "split_gpt2", "qwen2", "qwen3_5", "o200k", "tekken", "metaspace")
        ),
    ],
)
def test_pieces_have_the_tokens_and_places_of_the_whole_text(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(_tokenizer(kind, tmp_path), bos=False, threads=1)
    texts = _texts(1)
    whole = {length: windows(tokenizer, texts, length) for length in (1, 7)}
    # Pieces of a few characters, so that every place where a text may be cut is tried.
    for size in (1, 10):
        monkeypatch.setattr(text_pieces, "PIECE_CHARACTERS", size)
        monkeypatch.setattr("ladm.corpus.preparation.tokenization.PIECE_CHARACTERS", size)
        breaks = tokenizer._breaks
        assert breaks is not None
        assert sum(len(pieces_of(text, breaks)) for text in texts) > 2 * len(texts)
        for length, found in whole.items():
            assert windows(tokenizer, texts, length) == found


def test_only_proven_places_are_cut(tmp_path: Path) -> None:
    content = json.loads((Path(_tokenizer("llama2", tmp_path)) / "tokenizer.json").read_text())
    gpt2 = (Path(_tokenizer("gpt2", tmp_path / "gpt2")) / "tokenizer.json").read_text()
    assert find_breaks(content) is not None
    # A token with a letter before a space, an added token across the place, a normaliser that is not known.
    model = content["model"]
    other = content | {"model": model | {"vocab": model["vocab"] | {"e▁t": 10_000}}}
    assert find_breaks(other) is None
    added = content["added_tokens"][0]
    assert find_breaks(content | {"added_tokens": [added | {"content": "of the"}]}) is None
    assert find_breaks(content | {"added_tokens": [added | {"content": "end", "rstrip": True}]}) is None
    # One beside which Llama 2 puts no space, or a second one; elsewhere it may begin and end with a letter.
    for word in ("foo", "▁foo>", "<foo"):
        assert find_breaks(content | {"added_tokens": [added | {"content": word}]}) is None
        assert find_breaks(json.loads(gpt2) | {"added_tokens": [added | {"content": word}]}) is not None
    assert find_breaks(content | {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}) is None
    # The first token of a text keeps its space, unlike all others.
    trimmed = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    assert find_breaks(content | {"post_processor": trimmed}) is None


@pytest.mark.parametrize("kind", ["qwen2", "qwen3_5"])
def test_the_words_are_those_of_transformers(kind: str) -> None:
    module = importlib.import_module(f"transformers.models.{kind}.tokenization_{kind}")
    assert module.PRETOKENIZE_REGEX in text_pieces._WORDS


def test_few_texts_are_tokenised_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(_tokenizer("gpt2", tmp_path), bos=False, threads=1)
    texts = [f"{'the quick ' * 30}{k}" for k in range(20)]
    expected = windows(tokenizer, texts, 5)
    monkeypatch.setattr("ladm.corpus.preparation.tokenization.LEAST_BATCH_CHARACTERS", 1000)
    monkeypatch.setattr("ladm.corpus.preparation.tokenization.BATCH_CHARACTERS_PER_THREAD", 1000)
    sizes = []
    encode = encoding._encodings

    class Backend:
        def encode_batch(self, batch: list[str], *, add_special_tokens: bool) -> Any:
            sizes.append(sum(map(len, batch)))
            return tokenizer._backend.encode_batch(batch, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(encoding, "_encodings", lambda _backend, *rest: encode(Backend(), *rest))
    assert windows(tokenizer, texts, 5) == expected
    assert max(sizes) < 1500
    assert sum(sizes) == sum(map(len, texts))


def test_a_long_text_without_breaks_is_dropped_and_listed(
    ladm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MOST_UNBROKEN_CHARACTERS", 5000)
    monkeypatch.setattr(text_pieces, "PIECE_CHARACTERS", 1000)
    monkeypatch.setattr("ladm.corpus.preparation.tokenization.PIECE_CHARACTERS", 1000)
    documents = ["the quick xylophone " * 2000, "dGhl" * 2000, "dGhl" * 1000]
    source = tmp_path / "d.jsonl"
    source.write_text("".join(json.dumps({"text": text, "id": f"d{k}"}) + "\n" for k, text in enumerate(documents)))
    tokenizer = _tokenizer("gpt2", tmp_path / "tokenizer")
    result = ladm(
        "prepare", source, "--domain", "d", "--tokenizer", tokenizer, "--length", 128, "--output", tmp_path / "rows"
    )
    assert result.exit_code == 0
    line = (
        "unbroken              1  document dropped: more than 16,000,000 characters without a place where the text can "
        "be cut to be tokenised in parts"
    )
    assert line in result.stdout.splitlines()
    (dropped,) = map(json.loads, (tmp_path / "rows" / "dropped.jsonl").read_text().splitlines())
    assert dropped == {"source": f"{source} line 2", "document": 1, "id": "d1", "reason": "unbroken"}


@pytest.mark.slow
def test_the_memory_of_a_long_line(tmp_path: Path) -> None:
    """A line of 12 MB took 2.1 GB more than a short one."""
    tokenizer = _tokenizer("gpt2", tmp_path / "tokenizer")

    def most_kilobytes(sentences: int) -> int:
        source = tmp_path / f"{sentences}.jsonl"
        text = "the quick brown fox jumps over 12345 dogs. " * sentences
        source.write_text(json.dumps({"text": text, "domain": "d"}))
        command = [
            *(sys.executable, "-m", "ladm", "prepare", source, "--domain", "d", "--length", "128"),
            *("--tokenizer", tokenizer, "--num-proc", "2", "--output", tmp_path / f"rows-{sentences}"),
        ]
        measured = "import resource, subprocess, sys; print(subprocess.run(sys.argv[1:], stdout=2).returncode, "
        measured += "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        done = subprocess.run([sys.executable, "-c", measured, *map(str, command)], capture_output=True, text=True)
        code, most = map(int, done.stdout.split())
        assert code == 0, done.stderr
        return most // (1 if sys.platform == "linux" else 1024)

    # Against a short line, because a process that has imported torch needs 350 MB or, with CUDA, twice that.
    more = most_kilobytes(280_000) - most_kilobytes(100)
    assert more < 1_150_000
