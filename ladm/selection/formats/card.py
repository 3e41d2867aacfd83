"""A manifest -> the README.md of a subset: a dataset card as the Hub reads it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import yaml

from ladm.errors import count_of
from ladm.selection.manifest import Manifest
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS
from ladm.version import __version__

CARD_FILE = "README.md"
_LICENCE = "# license: that of the documents, which ladm does not know; name it here before you share this data set"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip
_LOADING = {
    "arrow": 'from datasets import load_from_disk\n\nrows = load_from_disk("{folder}")["train"]',
    "parquet": 'from datasets import load_dataset\n\nrows = load_dataset("{folder}", split="train")',
    "jsonl": 'from datasets import load_dataset\n\nrows = load_dataset("{folder}", split="train")',
    "megatron": (
        "from megatron.core.datasets.indexed_dataset import IndexedDataset\n\n"
        'rows = IndexedDataset("{folder}/train")  # or --data-path {folder}/train'
    ),
    "npy": (
        "import numpy as np\n\n"
        'tokens = np.load("{folder}/tokens.npy", mmap_mode="r")\n'
        'offsets = np.load("{folder}/offsets.npy", mmap_mode="r")\n'
        "first = tokens[offsets[0] : offsets[1]]"
    ),
}
"""How each format is opened."""
_OF_HUB = {
    "megatron": (
        "from huggingface_hub import snapshot_download\n"
        "from megatron.core.datasets.indexed_dataset import IndexedDataset\n\n"
        'folder = snapshot_download("{folder}", repo_type="dataset")\n'
        'rows = IndexedDataset(f"{{folder}}/train")'
    ),
    "npy": (
        "import numpy as np\nfrom huggingface_hub import snapshot_download\n\n"
        'folder = snapshot_download("{folder}", repo_type="dataset")\n'
        'tokens = np.load(f"{{folder}}/tokens.npy", mmap_mode="r")\n'
        'offsets = np.load(f"{{folder}}/offsets.npy", mmap_mode="r")\n'
        "first = tokens[offsets[0] : offsets[1]]"
    ),
}
"""The same on the Hub, of formats whose library reads local files alone."""


def card_text(
    manifest: Manifest,
    *,
    rows: int,
    folder: str,
    repository: str | None = None,
    weights: Mapping[str, float] | None = None,
) -> str:
    """The card: front matter, what is in the data set, a table by domain, the settings, how to load it.

    `repository`: the data set on the Hub that the card is for; None: the subset stays in `folder`. `weights`: those of
    the domains, where the budget was shared by weights.
    """
    loading = _LOADING if repository is None else _LOADING | _OF_HUB
    # The texts of JSON are texts of Python too, whatever signs the name of a folder has.
    place = json.dumps(folder if repository is None else repository, ensure_ascii=False)[1:-1]
    example = loading[manifest.format].format(folder=place)
    return "\n".join([*_front_matter(manifest, rows), *_body(manifest, rows, example, weights)]) + "\n"


def _front_matter(manifest: Manifest, rows: int) -> Iterator[str]:
    content: dict[str, object] = {"tags": ["ladm", "long-context"], "task_categories": ["text-generation"]}
    content["size_categories"] = [next((name for most, name in _SIZES if rows < most), "n>1B")]
    # The other formats are nothing that the Hub's viewer could open.
    if manifest.format in ("parquet", "jsonl"):
        files = [{"split": "train", "path": f"data/train-*.{manifest.format}"}]
        content["configs"] = [{"config_name": "default", "data_files": files}]
    yield "---"
    yield _LICENCE
    yield yaml.safe_dump(content, sort_keys=False).rstrip("\n")
    yield "---"


def _body(manifest: Manifest, rows: int, example: str, weights: Mapping[str, float] | None) -> Iterator[str]:
    yield "\n# Long documents selected with LADM\n"
    what = f"{count_of(manifest.taken_documents, 'row')} with {count_of(manifest.taken_tokens, 'token')}"
    pool = f"{count_of(manifest.pool_documents, 'row')} with {count_of(manifest.pool_tokens, 'token')}"
    by_score = manifest.by == "score"
    # An expression is of names, numbers and signs, of which Markdown would take `*` for emphasis.
    ranked = "their score" if by_score else f"`{' '.join(manifest.by.split())}`"
    how = "chosen by" if manifest.sample is None else "drawn by chance, weighted by"
    yield f"{what}, {how} {ranked} from {pool} with [LADM](https://arxiv.org/abs/2503.02502), ladm {__version__}."
    if rows != manifest.taken_documents:
        yield f"All {rows:,} rows are in the data set; `taken` says which were chosen."
    meaning = "higher where a document depends more on its distant parts" if by_score else f"the value of {ranked}"
    yield f"`score` is {meaning}; `rank` is its place in its domain."
    lowest_of = "lowest score taken" if by_score else "lowest value taken"
    yield f"\n| domain | rows in the pool | rows taken | tokens taken | {lowest_of} |\n|---|---:|---:|---:|---:|"
    for name, domain in manifest.domains.items():
        lowest = "" if domain.lowest_score_taken is None else f"{domain.lowest_score_taken:.6g}"
        counts = f"{domain.pool_documents:,} | {domain.taken_documents:,} | {domain.taken_tokens:,}"
        yield f"| {_cell(name)} | {counts} | {lowest} |"
    yield "\n## Settings\n"
    yield "```yaml"
    yield yaml.safe_dump(_settings(manifest, weights), sort_keys=False, allow_unicode=True).rstrip("\n")
    yield "```"
    yield "\n`manifest.json` has the rest: the identity of the run, the model with its hashes, the rows."
    yield "\n## Loading\n"
    yield f"```python\n{example}\n```"


def _settings(manifest: Manifest, weights: Mapping[str, float] | None) -> dict[str, object]:
    chosen: dict[str, object] = {"by": manifest.by, "budget": manifest.budget_text, "rule": manifest.rule}
    chosen["domain_key"] = manifest.domain_key
    # Weights and not the name of their file, which whoever reads the card does not have.
    shown = {name: int(weight) if weight == int(weight) else weight for name, weight in (weights or {}).items()}
    as_counted = "documents" if manifest.budget_tokens is None else "tokens"
    where_set = {
        "quota": shown or (manifest.quota if manifest.quota != as_counted else None),
        "within": [guard.given for guard in manifest.guards],
        "exclude_domain": list(manifest.excluded_domains),
        **{
            option: [each.file for each in manifest.id_lists if each.option == option]
            for option in (EXCLUDE_IDS, ONLY_IDS)
        },
        "sample": manifest.sample,
        "max_per_document": manifest.max_per_document,
        "max_per": [f"{cap.column}:{cap.most}" for cap in manifest.max_per],
        "command": manifest.command,
    }
    chosen |= {name: value for name, value in where_set.items() if value}
    return chosen | {name: manifest.run[name] for name in ("settings", "score", "layers") if name in manifest.run}


def _cell(name: str) -> str:
    """A name from the data inside a table: one line, and nothing that Markdown or HTML would act on."""
    plain = "".join(c if c.isprintable() else " " for c in name)
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;"), ("[", "&#91;")):
        plain = plain.replace(sign, entity)
    return plain
