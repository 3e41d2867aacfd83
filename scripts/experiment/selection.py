"""Does a better score select better data? One pool with planted bad documents, several ways to choose, a student each.

    python scripts/experiment/selection.py configs/experiment/cpu.yaml

The pool is windows of long documents, each from one place; some are replaced by what has no long-range structure of
its own: pasted pieces of several documents, spans in random order, a block repeated, a list. Every arm takes the same
number of rows of every domain, as `ladm select` does (`random x2` twice as many). First outcome: how many planted
rows an arm takes. Second: small models trained on each arm from scratch, judged by their loss on held-out documents
by position, document by document. A stopped experiment resumes; `report/report.md` and `report/report.json` are
the results.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from outcomes import KINDS, as_markdown, report
from planted_pool import plant, read_documents, save, windows

from ladm import __version__
from ladm.corpus.preparation.tokenization import plain_tokenizer
from ladm.corpus.rows.reading import open_rows
from ladm.method.reduction import reduce_cds
from ladm.runs.results import read_scores
from ladm.settings.profiles import read_profile
from ladm.storage.files import write_whole

IN_BAND = " in the band"
"""Arms that rank within the gzip band; their first outcome is reported, and no student is trained on them."""
GZIP_BAND = (0.2, 0.8)
"""The middle 60 % by compressibility, of which the arm takes a random part."""
HELD_OUT_WINDOWS = 2
"""Most held-out rows of one document: differences are between documents."""
OF_THE_POOL = ("pool", "held_out", "calculator", "row_tokens", "span_tokens", "windows_a_document", "planted_share")
"""Settings that decide what is in the pool and how it is scored; the files come first."""


def step(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def timed(path: Path) -> Iterator[None]:
    """Write to `path` the seconds that a part took, for the report; if it was resumed, those of the last launch."""
    started = time.monotonic()
    yield
    path.write_text(f"{time.monotonic() - started:.1f}\n")


def seconds_of(path: Path) -> float | None:
    return float(path.read_text()) if path.exists() else None


def ladm(*arguments: Any, threads: int | None = None) -> None:
    """Run a command of the product; `threads` limits its CPU threads."""
    own = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "ladm", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | own)


def begin(work: Path, config: dict[str, Any]) -> Path:
    """Refuse a work folder of other settings or documents; return the folder for this experiment's students."""
    own = {key: config[key] for key in OF_THE_POOL}
    own["calculator sha256"] = hashlib.sha256((Path(config["calculator"]) / "config.json").read_bytes()).hexdigest()
    own |= {f"{key} sha256": hashlib.sha256(Path(config[key]).read_bytes()).hexdigest() for key in OF_THE_POOL[:2]}
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "pool.json"
    if mark.exists() and json.loads(mark.read_text()) != own:
        sys.exit(f"{work} was started with other documents or settings; remove it, or set `work` to another folder")
    write_whole(mark, [json.dumps(own, indent=1).encode()])
    of_students = {key: value for key, value in config.items() if key not in ("work", "report", "at_once")}
    if config.get("profile"):
        of_students["profile sha256"] = hashlib.sha256(Path(config["profile"]).read_bytes()).hexdigest()
    students = work / f"students-{hashlib.sha256(json.dumps(of_students, sort_keys=True).encode()).hexdigest()[:8]}"
    students.mkdir(exist_ok=True)
    return students


def scores_of(work: Path, config: dict[str, Any], pool: list[dict[str, Any]], texts: list[str]) -> dict[str, Any]:
    """One number per row for every arm that ranks; higher ones are taken first."""
    if not (work / "run" / "sorted_by_score.jsonl").exists():
        with timed(work / "score.seconds"):
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
    }
    if config.get("profile"):
        profile = read_profile(config["profile"])
        columns = profile.reduction.columns(layers, num_heads=None)
        form = {"none": "", "no-std": "_no_std"}[profile.method.ablation]
        found["LADM profile"] = reduce_cds(cds[form][:, columns], profile.reduction.how, profile.reduction.weights)
    packed = np.array([len(zlib.compress(text.encode(), 6)) / len(text.encode()) for text in texts])
    low, high = np.quantile(packed, GZIP_BAND)
    in_band = (packed >= low) & (packed <= high)
    found["gzip band"] = in_band.astype(float)
    for name in ("LADM median", "LADM profile"):
        if name in found:
            found[f"{name}{IN_BAND}"] = np.where(in_band, found[name], -np.inf)
    return found


def choose(scores: dict[str, Any], domains: list[str], *, share: float, seed: int) -> dict[str, list[int]]:
    """Rows of every arm for a seed: the best share of each domain; the seed breaks ties and draws the random arms."""
    tie = np.random.default_rng([seed, 1]).permutation(len(domains))
    ranked = {name: np.lexsort((tie, -values)) for name, values in scores.items()} | {"random": np.argsort(tie)}
    quota = {domain: round(share * domains.count(domain)) for domain in domains}

    def best(order: np.ndarray, times: int) -> list[int]:
        left = {domain: times * rows for domain, rows in quota.items()}
        taken = []
        for row in map(int, order):
            if left[domains[row]]:
                left[domains[row]] -= 1
                taken.append(row)
        return sorted(taken)

    return {name: best(order, 1) for name, order in ranked.items()} | {"random x2": best(ranked["random"], 2)}


def student_tokenizer(texts: list[str], vocab: int, path: Path) -> Any:
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    if not path.exists():
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator(texts, vocab_size=vocab, min_frequency=2, show_progress=False)
        write_whole(path, [trained.to_str(pretty=True).encode()])
    return Tokenizer.from_file(str(path))


def make_student(folder: Path, student: dict[str, int], seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if folder.exists():
        return
    torch.manual_seed(seed)
    partial = folder.with_name(f"{folder.name}.partial")
    width, heads = student["width"], student["heads"]
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=student["vocab"], hidden_size=width, intermediate_size=3 * width, tie_word_embeddings=True,
            num_hidden_layers=student["layers"], num_attention_heads=heads, num_key_value_heads=heads,
            max_position_embeddings=student["length"], bos_token_id=None, eos_token_id=None,
        )
    ).save_pretrained(partial)  # fmt: skip
    partial.rename(folder)


def train_settings(config: dict[str, Any], seed: int) -> dict[str, Any]:
    return {
        "batch_tokens": config["batch_rows"] * config["student"]["length"], "learning_rate": config["learning_rate"],
        "warmup_steps": config["warmup_steps"], "rows_at_once": config["batch_rows"], "schedule": "cosine",
        "gradient_checkpointing": False, "save_every": 10_000, "seed": seed,
    }  # fmt: skip


def trained_losses(students: Path, config: dict[str, Any], name: str, seed: int, count: int) -> np.ndarray:
    """Loss of a student of this arm at every position of every held-out row: (rows, length - 1), stored on disk."""
    kept = students / "losses" / f"{name}.npy"
    if kept.exists():
        return np.load(kept)
    with timed(students / "losses" / f"{name}.seconds"):
        stacked = train_and_judge(students, config, name, seed, count)
    partial = kept.with_suffix(".partial.npy")
    np.save(partial, stacked)
    partial.rename(kept)
    return stacked


def train_and_judge(students: Path, config: dict[str, Any], name: str, seed: int, count: int) -> np.ndarray:
    tokens = config["passes"] * count * config["student"]["length"]
    step(f"training  {name}: {tokens:,} tokens")
    ladm("train", "--model", students / f"student-{seed}", "--rows", students / "arms" / name,
         "--output", students / "trained" / name, "--tokens", tokens, "--config", students / f"train-{seed}.yaml",
         threads=max(1, (os.cpu_count() or 1) // config["at_once"]))  # fmt: skip
    import torch

    from ladm.modeling.causal_lm import load_language, token_losses

    language = load_language(str(students / "trained" / name), device="auto", dtype="float32")
    held_out = open_rows(str(students / "held-out"))
    losses = [
        token_losses(language, torch.from_numpy(held_out.ids_at(k, vocab_size=language.vocab_size)).unsqueeze(0))[0]
        for k in range(len(held_out))
    ]
    return torch.stack(losses).numpy()


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


@click.command(help=__doc__.splitlines()[0])
@click.argument("config_file", type=click.Path(path_type=Path, exists=True))
@click.option("--scores-only", is_flag=True, help="Stop once the pool is scored.")
def main(config_file: Path, scores_only: bool) -> None:
    started = time.monotonic()
    config = yaml.safe_load(config_file.read_text())
    if config["seeds"] < 2:
        sys.exit("seeds: at least 2, because one seed cannot show how much of a difference is chance")
    work, out = Path(config["work"]), Path(config["report"])
    students = begin(work, config)
    tokenizer = plain_tokenizer(config["calculator"])
    cut = {"tokens": config["row_tokens"], "most": config["windows_a_document"]}
    intact = windows(read_documents(config["pool"]), tokenizer, **cut)
    pool = plant(intact, share=config["planted_share"], span_tokens=config["span_tokens"], seed=0)
    absent = [kind for kind in KINDS if kind not in {row["meta"]["kind"] for row in pool}]
    if absent:
        sys.exit(f"planted_share is too small for this pool: no row of the kind {absent[0]} would be planted")
    held_out = windows(read_documents(config["held_out"]), tokenizer, **cut | {"most": HELD_OUT_WINDOWS})
    held_out = [held_out[k] for k in np.random.default_rng(0).permutation(len(held_out))[: config["held_out_rows"]]]
    texts, held_out_texts = ([tokenizer.decode(row["ids"]) for row in rows] for rows in (pool, held_out))
    save(pool, work / "pool")
    step(f"pool      {len(pool)} rows of {config['row_tokens']} tokens; held out {len(held_out)}")
    student = config["student"]
    length = student["length"]
    intact_texts = [text for row, text in zip(pool, texts, strict=True) if row["meta"]["kind"] == "intact"]
    ours = student_tokenizer(intact_texts, student["vocab"], students / "tokenizer.json")

    def as_rows(texts: list[str]) -> list[dict[str, Any]]:
        rows = [{"ids": np.array(each.ids[:length]), "meta": {}} for each in ours.encode_batch(texts)]
        short = sum(len(row["ids"]) < length for row in rows)
        if short:
            sys.exit(f"{short} rows have fewer than {length} of the student's tokens; lower student.length")
        return rows

    rows = as_rows(texts)
    save(as_rows(held_out_texts), students / "held-out")
    scores = scores_of(work, config, pool, texts)
    if scores_only:
        return
    domains = [row["meta"]["pile_set_name"] for row in pool]
    chosen: dict[str, list[list[int]]] = {}
    trained: dict[str, list[Any]] = {}
    for folder in ("arms", "losses"):
        (students / folder).mkdir(exist_ok=True)
    with ThreadPoolExecutor(config["at_once"]) as at_work:
        for seed in range(config["seeds"]):
            make_student(students / f"student-{seed}", student, seed)
            (students / f"train-{seed}.yaml").write_text(yaml.safe_dump(train_settings(config, seed)))
            for arm, taken in choose(scores, domains, share=config["budget_share"], seed=seed).items():
                name = f"{arm.replace(' ', '-')}-{seed}"
                chosen.setdefault(arm, []).append(taken)
                if arm.endswith(IN_BAND):
                    continue
                save([rows[k] for k in taken], students / "arms" / name)
                trained.setdefault(arm, []).append(
                    at_work.submit(trained_losses, students, config, name, seed, len(taken))
                )
        # The first student that fails ends the experiment, and so does Ctrl-C; no waiting student starts after that.
        try:
            for each in as_completed([each for futures in trained.values() for each in futures]):
                each.result()
        finally:
            at_work.shutdown(cancel_futures=True)
    losses = {arm: np.array([each.result() for each in futures]) for arm, futures in trained.items()}
    document_of = np.array([row["meta"]["document"] for row in held_out])
    found = report(config, pool, document_of, chosen, losses)
    found["seconds"] = {
        "this launch": round(time.monotonic() - started, 1), "scores": seconds_of(work / "score.seconds"),
        "students": {path.stem: seconds_of(path) for path in sorted((students / "losses").glob("*.seconds"))},
    }  # fmt: skip
    found |= {
        "cores": os.cpu_count(), "device": device_name(), "config": config, "ladm": __version__,
        "command": f"python scripts/experiment/selection.py {config_file}",
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "report.md").write_text(as_markdown(found))
    print(as_markdown(found))


if __name__ == "__main__":
    main()
