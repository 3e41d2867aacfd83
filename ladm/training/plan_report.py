"""A plan -> the lines that `ladm train` prints before the first step: the settings as they will be used."""

from __future__ import annotations

from collections.abc import Iterator

from ladm.corpus.preparation.tokenization import disagreement
from ladm.errors import count_of
from ladm.modeling.layer_kinds import windowed_layers
from ladm.settings.subset import TAKEN_COLUMN
from ladm.training.batches import memory_estimate
from ladm.training.plan import TrainPlan


def describe_plan(plan: TrainPlan) -> Iterator[str]:
    """Rows, model, batch, budget, optimiser, memory, output, and warnings."""
    settings, batches = plan.settings, plan.batches
    used, base = len(plan.positions), plan.rope_base
    shorter = len(plan.rows) - used
    yield (
        f"rows      {plan.rows.name}: {used:,} of at least {batches.length:,} tokens, cut to that"
        + (f"; {shorter:,} shorter ones left out" if shorter else "")
    )
    yield f"model     {settings.model}: RoPE base {'none' if base is None else format(base, ',.0f')}"
    clipped = batches.tokens_a_step != settings.batch_tokens
    yield (
        f"batch     {count_of(batches.rows_a_step, 'row')}, {batches.tokens_a_step:,} tokens"
        + (f" (of {settings.batch_tokens:,} in the settings)" if clipped else "")
        + f": {batches.rows_at_once} at once on each of {batches.devices}, {batches.accumulate} times"
    )
    yield f"budget    {count_of(batches.steps, 'step')}, {batches.tokens:,} tokens of a budget of {settings.tokens:,}"
    yield (
        f"optimiser AdamW, rate {settings.learning_rate:g}, {settings.schedule} after {plan.warmup_steps} steps of "
        f"warm-up; in {'bfloat16' if plan.half else 'float32'}, attention {plan.attention}"
        + (", liger kernels" if plan.liger else "")
    )
    yield _memory_line(plan)
    yield f"output    {settings.output}"
    yield from _warnings(plan)


def _memory_line(plan: TrainPlan) -> str:
    memory = memory_estimate(
        plan.config, plan.batches, checkpointing=plan.settings.gradient_checkpointing, half=plan.half,
        liger=plan.liger, sharded=plan.sharded,
    )  # fmt: skip
    where = f"each of {plan.batches.devices} devices that share the states" if plan.sharded else "a device"
    parts = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in memory.items())
    return f"memory    about {sum(memory.values()) / 2**30:.1f} GiB on {where}: {parts}"


def _warnings(plan: TrainPlan) -> Iterator[str]:
    length = plan.batches.length
    windowed = windowed_layers(plan.text_config)
    window = getattr(plan.text_config, "sliding_window", None)
    if windowed and window is not None and window < length:
        yield f"warning   {len(windowed)} layers see only the last {window:,} tokens, but rows have {length:,}"
    if plan.rows_needed > len(plan.positions):
        times = plan.rows_needed / len(plan.positions)
        yield f"warning   the budget is {times:.1f} times the rows, which will be repeated"
    if TAKEN_COLUMN in plan.rows.column_names:
        yield f"warning   the rows have a column {TAKEN_COLUMN}, as --keep-all writes it: those not taken are used too"
    problem = disagreement(plan.rows, str(plan.model_folder))
    if problem is not None:
        yield f"warning   {problem}"
