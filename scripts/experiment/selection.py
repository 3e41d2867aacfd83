"""Does a better score select better data? One pool with planted bad documents, several ways to choose, a student each.

    python scripts/experiment/selection.py configs/experiment/cpu.yaml

The pool is windows of long documents, each from one place; some are replaced by what has no long-range structure of
its own: pasted pieces of several documents, spans in random order, a block repeated, a list. Every arm takes the same
number of rows (`random x2` twice as many). First outcome: how many planted rows an arm takes. Second: small models
trained on each arm from scratch, judged by their loss on held-out documents by position, document by document. All of
it goes on where it was stopped; `report/report.md` and `report/report.json` are the results.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from ladm import __version__
from ladm.contrast import DEGRADED_EVERY, contrast_set
from ladm.profiles import read_profile, reduce_cds
from ladm.results import read_scores
from ladm.rows import open_rows
from ladm.tokenizers import plain_tokenizer

KINDS = ("4 pieces", "16 pieces", "shuffled", "repeated", "list")
GZIP_BAND = (0.2, 0.8)
"""The middle 60 % by compressibility, of which the arm takes a random part."""
DRAWS = 4000
STUDENT = {1: (12.706, 1.376), 2: (4.303, 1.061), 3: (3.182, 0.978), 4: (2.776, 0.941), 9: (2.262, 0.883)}
"""Student's t by degrees of freedom: two-sided 5 %, and one-sided 20 %, which together make a power of 80 %."""


def step(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def ladm(*arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", "ladm", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def read_documents(path: str) -> list[dict[str, Any]]:
    content = Path(path).read_bytes()
    lines = (gzip.decompress(content) if path.endswith(".gz") else content).splitlines()
    found = [json.loads(line) for line in lines]
    return [document for document in found if document["meta"].get("kind", "document") == "document"]


def windows(documents: list[dict[str, Any]], tokenizer: Any, *, tokens: int, most: int) -> list[dict[str, Any]]:
    """Up to `most` windows of a document, each of `tokens` ids; `characters` is the whole document's length."""
    rows = []
    for number, document in enumerate(documents):
        ids = tokenizer(document["text"], add_special_tokens=False, verbose=False)["input_ids"]
        for k in range(min(most, len(ids) // tokens)):
            meta = {"document": number, "characters": len(document["text"]), "kind": "intact"}
            meta |= {"pile_set_name": document["meta"]["pile_set_name"]}
            rows.append({"ids": np.array(ids[k * tokens : (k + 1) * tokens]), "meta": meta})
    return rows


def plant(rows: list[dict[str, Any]], *, share: float, span_tokens: int, seed: int) -> list[dict[str, Any]]:
    """Replace a share of the rows by bad ones, as many of each kind, spread over all documents.

    A shuffled, repeated or list row is made of the row that it replaces, a pasted one begins with it,
    so that no kind stands for a domain and what is planted is not there intact as well.
    """
    draw = np.random.default_rng(seed)
    replaced = draw.permutation(len(rows))[: round(share * len(rows))]
    kind_of = {int(position): KINDS[k % len(KINDS)] for k, position in enumerate(replaced)}
    # In this order every replaced row is one of those, a fourth of all, that are also degraded.
    order = [*kind_of, *(k for k in range(len(rows)) if k not in kind_of)]
    pool = list(rows)
    for start in range(DEGRADED_EVERY):
        turned = order[start:] + order[:start]
        made = contrast_set(
            [rows[k]["ids"] for k in turned], np.zeros(len(rows), int), span_tokens=span_tokens, seed=seed + start
        )
        for row in made:
            position = turned[row.document]
            if kind_of.get(position) == row.kind:
                pool[position] = {"ids": row.ids, "meta": rows[position]["meta"] | {"kind": row.kind}}
                del kind_of[position]
    assert not kind_of
    return pool


def save(rows: list[dict[str, Any]], folder: Path) -> None:
    from datasets import Dataset

    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    Dataset.from_dict(
        {
            "input_ids": [row["ids"] for row in rows],
            "index": list(range(len(rows))),
            "meta": [row["meta"] for row in rows],
        }
    ).save_to_disk(str(partial))
    partial.rename(folder)


def begin(work: Path, config: dict[str, Any]) -> None:
    """Work made with other settings is not mixed with this."""
    own = {key: value for key, value in config.items() if key not in ("work", "report")}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "config.sha256"
    if mark.exists() and mark.read_text() != digest:
        sys.exit(f"{work} was begun with other settings; remove it, or give work another folder")
    mark.write_text(digest)


def scores_of(work: Path, config: dict[str, Any], pool: list[dict[str, Any]], texts: list[str]) -> dict[str, Any]:
    """A number a row for every arm that ranks; higher is taken."""
    if not (work / "run" / "sorted_by_score.jsonl").exists():
        ladm("score", work / "pool", "--model", config["calculator"], "--span-tokens", config["span_tokens"],
             "--record", "forms", "--output", work / "run")  # fmt: skip
    if json.loads((work / "run" / "run.json").read_text())["data"] != open_rows(str(work / "pool")).identity():
        sys.exit(f"{work / 'run'} did not score this pool; remove it")
    table = read_scores(work / "run", ["position", "cds_per_layer", "cds_per_layer_no_std"]).sort_by("position")
    if len(table) != len(pool):
        sys.exit(f"{len(pool) - len(table)} rows of the pool have no score; see {work / 'run'}/errors.jsonl")
    layers = tuple(json.loads((work / "run" / "run.json").read_text())["layers"])
    cds = {form: np.array(table[f"cds_per_layer{form}"].to_pylist()) for form in ("", "_no_std")}
    found = {
        "length": np.array([float(row["meta"]["characters"]) for row in pool]),
        "LADM mean": reduce_cds(cds[""], "mean"),
        "LADM median": reduce_cds(cds[""], "median"),
        "LADM median, no-std": reduce_cds(cds["_no_std"], "median"),
    }
    if config.get("profile"):
        profile = read_profile(config["profile"])
        columns = profile.reduction.columns(layers, num_heads=None)
        form = {"none": "", "no-std": "_no_std"}[profile.settings["ablation"]]
        found["LADM profile"] = reduce_cds(cds[form][:, columns], profile.reduction.how, profile.reduction.weights)
    packed = np.array([len(zlib.compress(text.encode(), 6)) / len(text.encode()) for text in texts])
    low, high = np.quantile(packed, GZIP_BAND)
    found["gzip band"] = ((packed >= low) & (packed <= high)).astype(float)
    return found


def choose(scores: dict[str, Any], *, rows: int, budget: int, seed: int) -> dict[str, list[int]]:
    """Rows of every arm for a seed: the best, ties (and the random arms) by the seed's draw."""
    tie = np.random.default_rng([seed, 1]).permutation(rows)
    arms = {name: np.lexsort((tie, -values))[:budget] for name, values in scores.items()}
    arms |= {"random": np.argsort(tie)[:budget], "random x2": np.argsort(tie)[: 2 * budget]}
    return {name: sorted(map(int, taken)) for name, taken in arms.items()}


def student_tokenizer(texts: list[str], vocab: int, path: Path) -> Any:
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    if not path.exists():
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator(texts, vocab_size=vocab, min_frequency=2, show_progress=False)
        trained.save(str(path))
    return Tokenizer.from_file(str(path))


def make_student(folder: Path, student: dict[str, int], seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").exists():
        return
    torch.manual_seed(seed)
    width, heads = student["width"], student["heads"]
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=student["vocab"], hidden_size=width, intermediate_size=3 * width, tie_word_embeddings=True,
            num_hidden_layers=student["layers"], num_attention_heads=heads, num_key_value_heads=heads,
            max_position_embeddings=student["length"], bos_token_id=None, eos_token_id=None,
        )
    ).save_pretrained(folder)  # fmt: skip


def trained_losses(work: Path, config: dict[str, Any], arm: str, seed: int, rows: Path, count: int) -> np.ndarray:
    """Loss of a student of this arm at every position of every held-out row: (documents, length - 1), kept on disk."""
    name = f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
    kept = work / "losses" / f"{name}.npy"
    if kept.exists():
        return np.load(kept)
    student = config["student"]
    make_student(work / f"student-{seed}", student, seed)
    tokens = config["passes"] * count * student["length"]
    settings = {
        "batch_tokens": config["batch_rows"] * student["length"], "learning_rate": config["learning_rate"],
        "warmup_steps": config["warmup_steps"], "rows_at_once": config["batch_rows"], "schedule": "cosine",
        "gradient_checkpointing": False, "save_every": 10_000, "seed": seed,
    }  # fmt: skip
    (work / "train.yaml").write_text(yaml.safe_dump(settings))
    step(f"training  {name}: {tokens:,} tokens")
    ladm("train", "--model", work / f"student-{seed}", "--rows", rows, "--output", work / "trained" / name,
         "--tokens", tokens, "--config", work / "train.yaml")  # fmt: skip
    import torch

    from ladm.language import load_language, token_losses

    language = load_language(str(work / "trained" / name), device="auto", dtype="float32")
    held_out = open_rows(str(work / "held-out-student"))
    losses = [
        token_losses(language, torch.from_numpy(np.array(row.raw_ids)).unsqueeze(0))[0].numpy()
        for row in held_out.read(0, len(held_out))
    ]
    kept.parent.mkdir(exist_ok=True)
    np.save(kept, np.array(losses))
    return np.array(losses)


def compared(ours: np.ndarray, theirs: np.ndarray, document_of: np.ndarray) -> dict[str, float]:
    """Mean paired difference of (seeds, rows), 95 % interval by Student's t over the seeds' and documents' variance.

    The variance is that of the seeds' means plus that of the documents' means: rows of one document count
    as one, and with S seeds the t has S - 1 degrees of freedom.
    """
    difference = ours - theirs
    S = len(difference)
    by_document = np.array([difference[:, document_of == d].mean() for d in np.unique(document_of)])
    variance = difference.mean(axis=1).var(ddof=1) / S + by_document.var(ddof=1) / len(by_document)
    error, t = float(np.sqrt(variance)), STUDENT[S - 1]
    mean = float(difference.mean())
    return {
        "difference": mean, "low": mean - t[0] * error, "high": mean + t[0] * error,
        "detectable": (t[0] + t[1]) * error,
    }  # fmt: skip


def taken_shares(pool: list[dict[str, Any]], takings: list[list[int]], kind: str | None) -> dict[str, float]:
    """Of the planted rows (of a kind), the share that an arm takes; the interval is by bootstrap over documents."""
    draw = np.random.default_rng(0)
    planted = [k for k, row in enumerate(pool) if row["meta"]["kind"] in (KINDS if kind is None else (kind,))]
    documents = np.array([pool[k]["meta"]["document"] for k in planted])
    hit = np.mean([[k in set(taken) for k in planted] for taken in takings], axis=0)
    names = np.unique(documents)
    counts = np.array([(documents == d).sum() for d in names])
    hits = np.array([hit[documents == d].sum() for d in names])
    drawn = draw.integers(0, len(names), (DRAWS, len(names)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return {"share": float(hit.mean()), "low": float(low), "high": float(high), "planted": len(planted)}


def report(
    config: dict[str, Any],
    pool: list[dict[str, Any]],
    document_of: np.ndarray,
    chosen: dict[str, list[list[int]]],
    losses: dict[str, np.ndarray],
) -> dict[str, Any]:
    """What both outcomes are, by arm. `document_of`: of the held-out rows."""
    length = config["student"]["length"]
    parts = {"all positions": slice(0, length - 1), "second half": slice(length // 2, length - 1)}
    bad = sum(row["meta"]["kind"] != "intact" for row in pool)
    found: dict[str, Any] = {"pool": len(pool), "planted": bad, "held_out": len(document_of), "arms": {}}
    edges = [0, *(length >> k for k in range(5, -1, -1))]
    found["random_by_position"] = {
        f"{start}-{stop - 1}": round(float(losses["random"][:, :, start : stop - 1].mean()), 4)
        for start, stop in itertools.pairwise(edges)
    }
    for name, takings in chosen.items():
        arm: dict[str, Any] = {"rows": len(takings[0]), "planted_taken": taken_shares(pool, takings, None)}
        arm["by_kind"] = {kind: taken_shares(pool, takings, kind) for kind in KINDS}
        for part, where in parts.items():
            ours = losses[name][:, :, where].mean(axis=2)
            arm[part] = {"loss": float(ours.mean())}
            if name != "random":
                arm[part] |= compared(ours, losses["random"][:, :, where].mean(axis=2), document_of)
        found["arms"][name] = arm
    return found


def as_markdown(found: dict[str, Any]) -> str:
    kinds = ", ".join(f"{arm['planted']} {kind}" for kind, arm in next(iter(found["arms"].values()))["by_kind"].items())
    lines = [
        f"{found['pool']} rows, {found['planted']} of them planted: {kinds}. Taken: the share of the planted rows that "
        f"an arm takes. Loss: nats a token on {found['held_out']} held-out rows, and its difference to `random` "
        "(negative is better) with the 95 % interval over documents and seeds; detectable: the smallest difference "
        "that this design finds four times in five.",
        "",
        "| arm | rows | planted rows taken | loss | difference to random | detectable "
        "| difference in the second half | detectable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in found["arms"].items():
        every, late = arm["all positions"], arm["second half"]
        taken = arm["planted_taken"]
        cells = [f"{taken['share']:.2f} ({taken['low']:.2f}-{taken['high']:.2f})", f"{every['loss']:.4f}"]
        for part in (every, late):
            told = "difference" in part
            cells.append(f"{part['difference']:+.4f} ({part['low']:+.4f} to {part['high']:+.4f})" if told else "-")
            cells.append(f"{part['detectable']:.4f}" if told else "-")
        lines.append(f"| {name} | {arm['rows']} | " + " | ".join(cells) + " |")
    lines += ["", "| arm | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for name, arm in found["arms"].items():
        cells = [f"{x['share']:.2f} ({x['low']:.2f}-{x['high']:.2f})" for x in arm["by_kind"].values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    by_position = ", ".join(f"{where} {loss:.2f}" for where, loss in found["random_by_position"].items())
    lines += ["", f"Loss of `random` by position: {by_position}."]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__.splitlines()[0])
@click.argument("config_file", type=click.Path(path_type=Path, exists=True))
@click.option("--scores-only", is_flag=True, help="Stop once the pool is scored.")
def main(config_file: Path, scores_only: bool) -> None:
    config = yaml.safe_load(config_file.read_text())
    if config["seeds"] - 1 not in STUDENT:
        sys.exit(f"seeds: one of {', '.join(str(k + 1) for k in STUDENT)}")
    work, out = Path(config["work"]), Path(config["report"])
    begin(work, config)
    tokenizer = plain_tokenizer(config["calculator"])
    cut = {"tokens": config["row_tokens"], "most": config["windows_a_document"]}
    intact = windows(read_documents(config["pool"]), tokenizer, **cut)
    pool = plant(intact, share=config["planted_share"], span_tokens=config["span_tokens"], seed=0)
    held_out = windows(read_documents(config["held_out"]), tokenizer, **cut)
    held_out = [held_out[k] for k in np.random.default_rng(0).permutation(len(held_out))[: config["held_out_rows"]]]
    texts, held_out_texts = ([tokenizer.decode(row["ids"]) for row in rows] for rows in (pool, held_out))
    save(pool, work / "pool")
    step(f"pool      {len(pool)} rows of {config['row_tokens']} tokens; held out {len(held_out)}")
    scores = scores_of(work, config, pool, texts)
    if scores_only:
        return

    student = config["student"]
    ours = student_tokenizer([tokenizer.decode(row["ids"]) for row in intact], student["vocab"], work / "student.json")
    length = student["length"]

    def as_rows(texts: list[str]) -> list[dict[str, Any]]:
        rows = [{"ids": np.array(each.ids[:length]), "meta": {}} for each in ours.encode_batch(texts)]
        short = sum(len(row["ids"]) < length for row in rows)
        if short:
            sys.exit(f"{short} rows have fewer than {length} of the student's tokens; lower student.length")
        return rows

    save(as_rows(held_out_texts), work / "held-out-student")
    rows = as_rows(texts)
    budget = round(config["budget_share"] * len(pool))
    chosen: dict[str, list[list[int]]] = {}
    losses: dict[str, list[np.ndarray]] = {}
    for seed in range(config["seeds"]):
        for name, taken in choose(scores, rows=len(pool), budget=budget, seed=seed).items():
            folder = work / "arms" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            folder.parent.mkdir(exist_ok=True)
            save([rows[k] for k in taken], folder)
            chosen.setdefault(name, []).append(taken)
            losses.setdefault(name, []).append(trained_losses(work, config, name, seed, folder, len(taken)))
    document_of = np.array([row["meta"]["document"] for row in held_out])
    found = report(config, pool, document_of, chosen, {name: np.array(each) for name, each in losses.items()})
    found |= {
        "config": config, "ladm": __version__,
        "command": f"python scripts/experiment/selection.py {config_file}",
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "report.md").write_text(as_markdown(found))
    print(as_markdown(found))


if __name__ == "__main__":
    main()
