"""A language model and rows -> can it repeat a fact hidden at some depth of a long context? Figure 3 of the paper."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig

from ladm.corpus.preparation.prepare import PrepareProgress
from ladm.corpus.preparation.tokenization import first_token, plain_tokenizer
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, UsageError
from ladm.evaluation.corpora import evaluation_rows, warn_of_disagreement
from ladm.modeling.causal_lm import CausalLM, load_language, require_positions
from ladm.modeling.language_head import FINITE_REMEDY
from ladm.modeling.model_files import model_folder
from ladm.progress import Echo, Progress
from ladm.settings.evaluation import NeedleSettings
from ladm.storage.files import io_errors, replacing, require_place, write_whole

CITIES = (
    "Lisbon", "Nairobi", "Oslo", "Lima", "Hanoi", "Quebec", "Dakar", "Tallinn", "Bergen", "Kyoto", "Cusco", "Split",
)  # fmt: skip
NEEDLE = "\nThe magic number of {city} is {number}.\n"
QUESTION = "\nQuestion: What is the magic number of {city}?\nAnswer: The magic number of {city} is"
ANSWER_TOKENS = 16
HAYSTACKS = 4
"""Text to draw hay from, as a multiple of the longest haystack."""
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class Haystack:
    """A prompt with a needle in it, and the number that answers it."""

    ids: npt.NDArray[np.int64]
    number: str


def needle(settings: NeedleSettings, *, echo: Echo, progress: Progress, preparing: PrepareProgress) -> dict[str, Any]:
    """Try every length and depth, and write `settings.output` and a heat map beside it; returns what is written.

    Raises LadmError where the rows are too short for the longest haystack or the model has no tokenizer.
    """
    output, picture = Path(settings.output), Path(settings.output).with_suffix(".png")
    require_place(output, mark='"depths"')
    if picture.exists() and not output.exists():
        raise UsageError(
            f"--output {output}: {picture} exists and was not written by this command; give another --output"
        )
    folder, longest = model_folder(settings.model), max(settings.lengths)
    tokenizer = plain_tokenizer(str(folder))
    language = load_language(settings.model, device=settings.device, dtype=settings.dtype)
    with evaluation_rows(
        settings.rows, model=folder, length=longest, documents=HAYSTACKS, echo=echo, preparing=preparing
    ) as rows:
        hay = _hay(rows, longest, language, special=set(tokenizer.all_special_ids))
        warn_of_disagreement(rows, folder, echo)
    require_positions(language, longest, echo)
    depths = [k / (settings.depths - 1) if settings.depths > 1 else 0.5 for k in range(settings.depths)]
    draw = np.random.default_rng(settings.seed)
    progress.start(total=len(settings.lengths) * len(depths) * settings.repeats, done=0)
    found: list[list[float]] = []
    for length in settings.lengths:
        found.append([])
        for depth in depths:
            right = 0
            for _ in range(settings.repeats):
                prompt = make_haystack(hay, tokenizer, length=length, depth=depth, draw=draw)
                right += answers(language, tokenizer, prompt)
                progress.advance(rows=1, tokens=length)
            found[-1].append(right / settings.repeats)
    progress.close()
    record = {
        "model": settings.model, "rows": settings.rows, "lengths": list(settings.lengths), "depths": depths,
        "repeats": settings.repeats, "seed": settings.seed, "exact_match": found,
        "mean": float(np.mean(found)),
    }  # fmt: skip
    # The numbers first: a picture without them would pass for somebody else's, and stop the next try.
    write_whole(output, [json.dumps(record, indent=1).encode() + b"\n"])
    _draw(record, picture)
    return record


def make_haystack(
    hay: npt.NDArray[np.int64], tokenizer: Any, *, length: int, depth: float, draw: np.random.Generator
) -> Haystack:
    """A prompt that has exactly `length` tokens with its answer; the hay begins anywhere in what there is of it.

    The tokenizer's first token stands in front where the tokenizer puts it there.

    Raises LadmError when all that but the hay is longer.
    """
    city = CITIES[int(draw.integers(len(CITIES)))]
    number = str(int(draw.integers(10**6, 10**7)))
    fact, question = (
        np.array(tokenizer(text.format(city=city, number=number), add_special_tokens=False)["input_ids"])
        for text in (NEEDLE, QUESTION)
    )
    first = np.array(first_token(tokenizer), dtype=np.int64)
    fixed = len(first) + len(fact) + len(question) + ANSWER_TOKENS
    room = length - fixed
    if room < 2:
        raise LadmError(f"--lengths {length}: needle, question and answer alone have {fixed} tokens")
    start = int(draw.integers(0, len(hay) - room + 1))
    straw = hay[start : start + room]
    place = round(depth * room)
    return Haystack(ids=np.concatenate([first, straw[:place], fact, straw[place:], question]), number=number)


@torch.inference_mode()
def answers(language: CausalLM, tokenizer: Any, prompt: Haystack) -> bool:
    """Is the first number of the greedy continuation the one that was hidden?

    Raises LadmError where the model's logits are not finite.
    """
    ids_BT = torch.from_numpy(prompt.ids).unsqueeze(0).to(language.device)
    # Without this, beams and penalties for repetition in the model's generation_config.json would be used.
    language.model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=ANSWER_TOKENS, pad_token_id=tokenizer.pad_token_id or 0,
        eos_token_id=language.model.generation_config.eos_token_id,
    )  # fmt: skip
    language.rotary.restore()
    found = language.model.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), return_dict_in_generate=True, output_logits=True
    )
    # Of NaN the greedy choice is some token, and the answer would count as a wrong one.
    if not all(torch.isfinite(logits_BV).all() for logits_BV in found.logits):
        raise LadmError(f"{language.name}: logits after {ids_BT.shape[1]:,} tokens are not finite; {FINITE_REMEDY}")
    said = _DIGITS.search(tokenizer.decode(found.sequences[0, ids_BT.shape[1] :]))
    return said is not None and said[0] == prompt.number


def _hay(rows: Rows, wanted: int, language: CausalLM, *, special: set[int]) -> npt.NDArray[np.int64]:
    """Ids of the first rows, special ones left out, one row behind the other; some times as many as wanted."""
    parts: list[npt.NDArray[np.int64]] = []
    for position in range(len(rows)):
        if sum(map(len, parts)) >= HAYSTACKS * wanted:
            break
        ids = rows.ids_at(position, vocab_size=language.vocab_size)
        parts.append(ids[~np.isin(ids, list(special))])
    hay = np.concatenate(parts)
    if len(hay) < wanted:
        raise LadmError(f"{rows.name}: {len(hay):,} tokens in all, but a haystack needs {wanted:,}")
    return hay


def _draw(record: dict[str, Any], path: Path) -> None:
    """A heat map of the share of exact answers by length and depth. Raises StorageError where it cannot be written."""
    # Not pyplot: it may need a display, and its backend and open figures are those of the program that calls this.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.9 * len(record["lengths"]), 3.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.array(record["exact_match"]).T, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(record["lengths"])), [f"{length:,}" for length in record["lengths"]], rotation=45)
    axes.set_yticks(range(len(record["depths"])), [f"{depth:.0%}" for depth in record["depths"]])
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("depth of the needle")
    axes.set_title(f"exact match, mean {record['mean']:.2f}")
    figure.colorbar(image)
    with io_errors(path, "write"), replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
