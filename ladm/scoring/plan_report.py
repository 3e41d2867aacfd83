"""A plan and its rows -> the lines that `ladm score` prints before it starts. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from ladm.corpus.preparation.tokenization import disagreement
from ladm.corpus.rows.reading import Rows
from ladm.errors import count_of
from ladm.scoring.plan import Plan
from ladm.settings.layers import spell_layers
from ladm.settings.signals import CDS, CONTEXT_GAIN
from ladm.signals.prolong import forward_tokens, number_of_pairs, number_of_segments


def describe_plan(plan: Plan, rows: Rows) -> Iterator[str]:
    """The lines to print: the settings as they will be used."""
    of_more = f", the first of {rows.total:,}" if rows.total > len(rows) else ""
    yield f"rows      {rows.name}: {count_of(len(rows), 'row')}{of_more}"
    if plan.settings.runs_model:
        yield f"model     {plan.facts.name}: {plan.facts.model_type}, {count_of(plan.facts.num_layers, 'layer')}"
    else:
        yield f"model     {plan.facts.name}: not run, a vocabulary of {plan.facts.vocab_size:,} tokens"
    if CDS in plan.signals:
        yield from _method(plan)
    if plan.signals != (CDS,):
        scheme = f" (context-gain over {plan.settings.context_gain})" if CONTEXT_GAIN in plan.signals else ""
        yield f"signals   {', '.join(plan.signals)}{scheme}"
    yield f"device    {_device(plan)}"
    if plan.placement is not None and plan.cluster is None:
        yield f"shard     {plan.placement.shard.index} of {plan.placement.shard.count} that share the run"
    # Statistics of texts are those of the rows' own ids, whatever the model's tokenizer makes of the texts.
    problem = disagreement(rows, plan.facts.folder) if plan.settings.runs_model else None
    if problem is not None:
        yield f"warning   {problem}"


def _device(plan: Plan) -> str:
    used, runs_model = plan.hardware, plan.settings.runs_model
    if plan.cluster is not None:
        where = f"{count_of(plan.cluster.actors, 'actor')} of Ray"
    else:
        processes = count_of(len(used.devices), "process", "processes")
        where = ", ".join(used.devices) if runs_model else f"cpu in at most {processes}"
    if not runs_model:
        return where
    return f"{where} in {used.dtype}, attention {used.attention}, focus {used.backend}, fused {used.fused}"


def _method(plan: Plan) -> Iterator[str]:
    s = plan.settings
    method = s.method
    n0 = "where the released code starts" if method.n0 is None else method.n0
    yield (
        f"method    {method.variant}, spans of {count_of(method.span_tokens, 'token')}, m {method.m}, "
        f"n {method.n}, n0 {n0}, d_afs {method.d_afs}, d_cds {method.d_cds}, ablation {method.ablation}, "
        f"layers {spell_layers(plan.layers)} stored"
    )
    # A score may be made of fewer layers than are stored, and of another form of CDS than the method's.
    name = ""
    if s.score is not None:
        name = f"{s.score}: {'value-weighted, without sigma' if s.focus == 'value' else 'as published'}, "
    yield f"score     {name}{plan.reduction.how} over layers {spell_layers(plan.reduction.layers)}"
    if plan.profile is not None:
        yield f"profile   {s.profile}: calibrated at {plan.profile.length_tokens:,} tokens"


def prolong_cost(rows_by_length: dict[int, int], *, most_pairs: int | None) -> str:
    """What the long-dependency score will cost beside a plain forward pass over the rows: a line to print."""
    plain = segments = pairs = tokens = 0
    for length, count in rows_by_length.items():
        plain += count * length
        segments += count * number_of_segments(length)
        pairs += count * number_of_pairs(length, most=most_pairs)
        tokens += count * forward_tokens(length, most=most_pairs)
    fewer = "" if most_pairs is not None else "; --prolong-pairs N samples"
    return (
        f"prolong   {segments:,} segments and {pairs:,} pairs of them: {tokens / max(plain, 1):,.1f} times the tokens "
        f"of the rows go through the model{fewer}"
    )
