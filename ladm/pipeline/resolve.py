"""The settings of a job, some left open -> all of them: length and domain key are found in the documents."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ladm.corpus.documents.missing_keys import keys_of, list_keys, replaced_domains, require_keys
from ladm.corpus.documents.sources import Source, find_sources
from ladm.corpus.files.data_set import load_split
from ladm.corpus.files.hub import TRAIN, may_be_data_set
from ladm.corpus.files.opening import open_bytes
from ladm.corpus.files.other_stages import first_with_token_ids, require_documents
from ladm.corpus.preparation.tokenization import Tokenizer, load_tokenizer
from ladm.errors import UsageError, count_of
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.pipeline.document_sample import FoundDomains, Sample, choose_length, find_domains, look_at
from ladm.pipeline.domain_keys import UNKNOWN, domain_flags
from ladm.progress import Echo, silent
from ladm.scoring.engines.processes import early_worker
from ladm.scoring.plan import choose_layers, find_hardware
from ladm.scoring.row_lengths import is_too_long
from ladm.selection.quota_weights import has_weights, read_quota
from ladm.settings.common import DOMAIN_KEY, NO_DOMAINS, require_domain_has_effect
from ladm.settings.data import PrepareSettings
from ladm.settings.fields import settings_of
from ladm.settings.pipeline import ROWS, SCORES, prepare_settings, score_settings
from ladm.settings.profiles import read_profile
from ladm.settings.score import ScoreSettings

ID_COLUMN = "input_ids"
_OF_PREPARING_ALONE = ("text_key", "id_key", "token_count_key", "bos", "windows", "keep_duplicates")
"""Settings that say how rows are made of documents."""
_EVERYWHERE = {"auto", "cpu", "torch", "none"}
"""Devices and kernels that every machine has, or can do without."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found out about the documents of a job."""

    settings: Any
    """Those of the job, with everything that was left open."""
    sources: list[Source]
    sample: Sample | None
    """None where nothing had to be found in documents, or the source is a data set of token ids."""


def facts_of(job: Any) -> ModelFacts:
    """Those of the job's model, of which statistics of texts alone need no weights. Raises as `model_facts`."""
    scoring = score_settings(job, rows=ROWS, output=SCORES, resolve_profile=False)
    return model_facts(job.model, weights=scoring.runs_model)


def resolve(settings: Any, facts: ModelFacts, echo: Echo) -> Any:
    """The settings with everything that was left open."""
    return survey(settings, facts, echo).settings


def survey(settings: Any, facts: ModelFacts, echo: Echo, *, always_sample: bool = False) -> Survey:
    """The settings with everything that was left open, and what they were found in.

    `always_sample`: look at documents even where nothing is left open, and for damaged files among theirs.
    """
    require_documents(settings.sources)
    _require_usable(settings, facts)
    if is_rows(settings):
        require_domain_has_effect(settings.domain, settings.domain_key)
        _require_part_that_is_scored(settings)
        echo(f"rows      {settings.sources[0]} has token ids, which are scored as they are")
        if settings.domain_key is None:
            echo(f"domains   {DOMAIN_KEY} of the rows, or their column domain (--domain-key KEY names another key)")
        return Survey(settings=settings, sources=[], sample=None)
    sources = _sources(settings, echo=echo)
    echo(f"sources   {len(sources):,} ({_kinds(sources)})")
    tokenizer = load_tokenizer(settings.tokenizer or settings.model, bos=settings.bos)
    hint = require_keys(_of_preparing(settings), sources)
    replaced = replaced_domains(_of_preparing(settings), sources)
    if replaced is not None:
        echo(f"warning   {replaced}")
    if hint is not None:
        echo(f"ids       {hint}")
    with_ids = first_with_token_ids(each.name for each in sources if each.kind == "parquet")
    if with_ids is not None:
        echo(f"note      {with_ids} has token ids too, in {ID_COLUMN}; rows are made of its texts instead")
    echo(f"tokenizer {settings.tokenizer or f'that of {settings.model}'}")
    is_open = settings.length is None or (settings.domain_key is None and settings.domain is None)
    if not is_open and not always_sample:
        return Survey(settings=settings, sources=sources, sample=None)
    sample = look_at(
        sources, text_key=settings.text_key, token_count_key=settings.token_count_key, check_files=always_sample
    )
    found = _found_in(sample, settings, tokenizer, facts, echo)
    return Survey(settings=dataclasses.replace(settings, **found), sources=sources, sample=sample)


def _found_in(sample: Sample, settings: Any, tokenizer: Tokenizer, facts: ModelFacts, echo: Echo) -> dict[str, Any]:
    """The settings that were left open, as the documents of a sample decide them; `echo` gets a line about each."""
    found: dict[str, Any] = {}
    if settings.length is None:
        length, share = choose_length(sample, tokenizer, text_key=settings.text_key, most=facts.max_tokens)
        found["length"] = length
        echo(
            f"length    {length:,} tokens: documents of at least that many have {share:.0%} of the tokens "
            f"(of {len(sample.documents):,} documents looked at)"
        )
    if settings.domain_key is None and settings.domain is None:
        domains = find_domains(sample)
        found["domain_key"] = domains.key or NO_DOMAINS
        # Of a key that was found in a part of the documents, one without it must not stop the job.
        found["domain"] = UNKNOWN if domains.key else None
        echo(f"domains   {_words_of(domains, sample, text_key=settings.text_key)}")
    return found


def _require_usable(settings: Any, facts: ModelFacts) -> None:
    """Raise now for settings of later parts of the job that would be refused there, after hours of work."""
    # What is read and chosen here serves the errors alone: `score` and `select` do it again.
    scoring = score_settings(settings, rows=ROWS, output=SCORES)
    choose_layers(scoring, facts, None if scoring.profile is None else read_profile(scoring.profile))
    _require_hardware(scoring, facts)
    if settings.length is not None and is_too_long(settings.length, scoring, facts):
        raise UsageError(
            f"--length {settings.length} is more than the {facts.max_tokens:,} positions of {facts.name}, which could "
            f"score none of the rows; give --length {facts.max_tokens} or less, or leave it out"
        )
    if has_weights(settings.quota):
        read_quota(settings.quota)


def _require_hardware(scoring: ScoreSettings, facts: ModelFacts) -> None:
    """Raise LadmError for a device or kernels that are not here, where the settings name any."""
    # To import torch takes seconds, and whatever is left to `score` to choose, it finds. The nodes of Ray are others.
    named = {scoring.device, scoring.attention, scoring.backend, scoring.fused} - _EVERYWHERE
    if scoring.engine != "local" or not named:
        return
    with early_worker(device=scoring.device, threads=None) as early:
        find_out = partial(find_hardware, scoring, facts, recorded=None, rank=None, try_attention=False)
        early.call(find_out) if early else find_out()


def _words_of(domains: FoundDomains, sample: Sample, *, text_key: str) -> str:
    if domains.key is None:
        keys = [key for fields in sample.documents for key in keys_of(fields) if key != text_key]
        if not keys:
            return "all documents are one domain; --domain NAME names it"
        return (
            f"no domain key found, so all documents are one domain; give --domain-key one of {list_keys(keys)}, or "
            "--domain a name"
        )
    values = f"{domains.key}: {count_of(domains.values, 'value')}"
    if domains.without:
        of_all = f"{domains.without:,} of {len(sample.documents):,} documents looked at"
        values = f"{values}; {of_all} have none, and are the domain {UNKNOWN}"
    return f"{values} (a guess; --domain-key KEY names another key)"


def _require_part_that_is_scored(settings: Any) -> None:
    """Raise UsageError for a part of a data set of token ids that `ladm score` does not read, and for other flags.

    It has neither --split nor --hub-config: of several splits it reads `train`, of several configurations the default.
    """
    (name,) = settings.sources
    for field in settings_of(PrepareSettings):
        if field.name in _OF_PREPARING_ALONE and getattr(settings, field.name) != field.default:
            raise UsageError(
                f"{field.flag} has no effect: {name} has token ids, which are scored as they are; leave it out, or "
                "give --length to make other rows of its texts"
            )
    remedy = "save that part alone with save_to_disk, and give its folder"
    if settings.hub_config is not None:
        raise UsageError(
            f"--hub-config {settings.hub_config}: {name} has token ids, which are scored as they are, in the default "
            f"configuration; {remedy}"
        )
    # A folder with a single split is read as it is, whatever the split is called.
    is_single = Path(name).is_dir() and not (Path(name) / "dataset_dict.json").exists()
    if settings.split not in (None, TRAIN) and not is_single:
        raise UsageError(
            f"--split {settings.split}: {name} has token ids, which are scored as they are, in the split {TRAIN}; "
            f"{remedy}"
        )


def _of_preparing(settings: Any) -> PrepareSettings:
    """The settings of `ladm prepare` as far as they are about keys."""
    key, domain = domain_flags(settings.domain_key)
    return prepare_settings(settings, rows="rows", length=1, domain_key=key, domain=domain)


def _kinds(sources: list[Source]) -> str:
    return " and ".join(sorted({source.kind for source in sources}))


def is_rows(settings: Any) -> bool:
    """Is the source a data set of token ids, to be scored without another tokenisation? --length says no."""
    if len(settings.sources) != 1 or settings.length is not None:
        return False
    (name,) = settings.sources
    is_local = Path(name).is_dir()
    if not is_local and (Path(name).exists() or not may_be_data_set(name)):
        return False
    sources = _sources(settings)
    if is_local:
        return sources[0].kind == "dataset" and ID_COLUMN in load_split(name, split=settings.split).column_names
    if sources[0].kind != "parquet":
        return False
    # Of the Hub the columns alone: a whole data set may be terabytes.
    with open_bytes(sources[0].name) as file:
        return ID_COLUMN in pq.read_schema(file).names


def _sources(settings: Any, *, echo: Echo = silent) -> list[Source]:
    return find_sources(
        list(settings.sources), output=Path(settings.output), config=settings.hub_config, split=settings.split,
        echo=echo,
    )  # fmt: skip
