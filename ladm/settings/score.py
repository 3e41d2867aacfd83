"""What `ladm score` does: its flags with defaults, types, ranges and help. The method has a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladm.errors import UsageError
from ladm.method.grid import NEEDS_EARLIER_SPANS, Ablation, FocusKind
from ladm.settings.common import (
    DType,
    device_setting,
    dtype_setting,
    model_setting,
    other_tokenizer_setting,
    output_setting,
)
from ladm.settings.fields import DEVICE, setting
from ladm.settings.layers import parse_layers
from ladm.settings.method import MethodSettings
from ladm.settings.named_scores import NamedScore, named_score
from ladm.settings.signals import DEFAULT_SIGNALS, TEXT, parse_signals

Reduce = Literal["mean", "median", "geometric"]
Recorded = Literal["layers", "heads", "range", "forms"]
Backend = Literal["auto", "torch", "triton"]
Attention = Literal["auto", "flash", "cudnn", "flash-attn", "fa3", "fa4", "efficient"]
Fused = Literal["auto", "none", "triton", "liger"]
Engine = Literal["local", "ray"]
GainScheme = Literal["suffix", "blocks"]

LAYERS = "Layers, and what is recorded"
SIGNALS_SECTION = "Signals: what is computed for a row"
MACHINES = "Several processes, several machines"
RESTARTS = "Errors and restarts"


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(MethodSettings):
    """The settings of `ladm score`. A run is resumed only with the same values of those that change its result.

    The identity of a run holds the content of `rows` and the hashes of the model's files in place of their names.
    """

    # The name is not part of a run's identity: rows may be moved or downloaded again, and their content is compared.
    rows: str = setting("", "", metavar="ROWS", required=True, positional=True)
    # The model that the paper's authors published, TinyLlama trained further on rows of 32,768 tokens.
    model: str = model_setting("Model folder or Hub id of the calculator.", default="UltraRonin/Long-Attn-Calculator")
    output: str = output_setting("Run folder; the same command resumes it.", metavar="RUN")
    reduce: Reduce = setting("mean", "How the scores of the layers become one score.", section=LAYERS)
    # Stopping early is what makes a profile cheap: layers 0-10 of 22 cost half a forward pass.
    layers: str | None = setting(
        None,
        "Layers to score, such as 0-10,14; the model stops after the last of them.",
        section=LAYERS,
        metavar="LAYERS",
        digits=True,
        commas=True,
        unset="all",
    )
    # Each choice includes the columns of `layers`. `forms` is that of `heads`, but for a form more beside an ablation.
    record: Recorded = setting(
        "layers",
        "What to store besides the score. layers: CDS, copy share, sink mass and near share by layer; heads: also by "
        "head; range: also the long-range focus; forms: as heads, and the columns without sigma whatever the "
        "--ablation.",
        section=LAYERS,
    )
    # Not a choice of its own type, because it may also be the path of a profile.
    score: str | None = setting(
        None,
        "released or paper: mean CDS in that variant; robust: mean value-weighted CDS without sigma over the later "
        "half of the layers, which attention sinks do not disturb; or a .yaml file, as with --profile.",
        section=LAYERS,
        metavar="SCORE",
        unset="set by the other flags",
    )
    profile: str | None = setting(
        None,
        "File written by ladm calibrate; it sets the method, the layers and the reduction.",
        section=LAYERS,
        metavar="PROFILE",
        unset="none",
    )
    # Not a tuple: the flag is one word, like --layers, and None has a meaning of its own.
    signals: str | None = setting(
        None,
        "Any of cds, context-gain, longattn, text, prolong. Those that a finished run lacks are added to it. The score "
        "comes from cds, or without cds from the first column.",
        section=SIGNALS_SECTION,
        metavar="SIGNALS",
        commas=True,
        unset="cds,text, or what RUN has",
    )
    context_gain: GainScheme = setting(
        "suffix",
        "Tokens that context-gain compares: the last quarter of a row, or all but the first quarter.",
        section=SIGNALS_SECTION,
    )
    unigrams: str | None = setting(
        None,
        "Token counts for the signal text: the unigrams.npy of another run. far_rare can only be compared between runs "
        "with the same counts; ladm annotate gives others to a finished run.",
        section=SIGNALS_SECTION,
        metavar="FILE",
        unset="counted on ROWS",
    )
    prolong_pairs: int | None = setting(
        None,
        "Pairs of segments that prolong samples from a row; each takes a forward pass of 256 tokens.",
        section=SIGNALS_SECTION,
        metavar="N",
        unset="all",
        at_least=1,
    )
    # dtype, backend and attention change the last digits of a score, so a run is never mixed of two.
    dtype: DType = dtype_setting()
    backend: Backend = setting(
        "auto",
        "Implementation of equation 2; auto: triton on CUDA, torch elsewhere.",
        section=DEVICE,
    )
    attention: Attention = setting(
        "auto",
        "Fused attention kernel; auto: the fastest that is installed and correct on a short input.",
        section=DEVICE,
    )
    fused: Fused = setting(
        "auto",
        "Kernels for the elementwise operations of a layer; auto: triton on CUDA in half precision, for supported "
        "models.",
        section=DEVICE,
    )
    # Which GPU does not matter, and a run may move; CPU or CUDA does matter, and is recorded when `auto` is resolved.
    device: str = device_setting("auto, cpu, cuda (all visible GPUs), or cuda:0,1.")
    engine: Engine = setting("local", "This machine, or a Ray cluster (RAY_ADDRESS).", section=MACHINES)
    workers: int | None = setting(
        None,
        "Processes on a CPU, which share its cores; with Ray: actors.",
        section=MACHINES,
        metavar="N",
        unset="one process, or one for each core with --signals text; with Ray one actor for each GPU or node",
        at_least=1,
    )
    # Launches under Slurm or torchrun find their place in the environment, so the flag is for clusters without them.
    shard: str | None = setting(
        None,
        "This launch is number I of N that share RUN.",
        section=MACHINES,
        metavar="I/N",
        unset="from Slurm or torchrun, else alone",
    )
    allow_other_tokenizer: bool = other_tokenizer_setting()
    # Rows of a batch have equal length and are never padded, so its size changes a score by rounding at most: that of a
    # GPU in the last digits, that of a CPU in float32 not at all.
    batch_size: int | Literal["auto"] = setting(
        "auto",
        "Rows of equal length per step; auto: on a GPU, the fastest number.",
        section=DEVICE,
        at_least=1,
    )
    # Not marked as changing the result, because the identity of the data covers just the first N rows.
    limit: int | None = setting(None, "Score only the first N rows.", metavar="N", unset="all", at_least=1)
    dry_run: bool = setting(
        False,
        "Load the model, time up to three rows, estimate what the whole run takes; write nothing.",
    )
    max_errors: int | None = setting(
        None,
        "Stop when more than N rows have no score.",
        section=RESTARTS,
        metavar="N",
        unset="never",
        at_least=0,
    )
    fail_fast: bool = setting(False, "Stop at the first row without a score.", section=RESTARTS)
    retry_errors: bool = setting(False, "Retry every row without a score.", section=RESTARTS)
    # The only flag that deletes scores. Only the refusal of changed settings names it, after the ways that keep them.
    overwrite: bool = setting(
        False,
        "Delete the run in RUN, with all its scores, and start again.",
        section=RESTARTS,
        destructive=True,
    )

    def check_together(self) -> None:
        if self.variant == "released" and self.n == 0:
            raise UsageError(f"--{NEEDS_EARLIER_SPANS}")
        parse_layers(self.layers)
        parse_signals(self.signals)
        if self.score is not None:
            self._check_score(named_score(self.score))

    def _check_score(self, named: NamedScore) -> None:
        """Raise UsageError where another setting contradicts the score of that name."""
        if self.profile is not None:
            raise UsageError(f"--score {self.score} and --profile {self.profile} are two scores; give one of them")
        for name, value in (("variant", named.variant), ("reduce", "mean"), ("ablation", "none")):
            given = getattr(self, name)
            if value is not None and given != value:
                raise UsageError(
                    f"--score {self.score} needs --{name} {value}, but --{name} {given} was given; leave one of them "
                    "out"
                )

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The signals of a new run, in the order of their columns."""
        return parse_signals(self.signals) or DEFAULT_SIGNALS

    @property
    def runs_model(self) -> bool:
        """Does any signal run the model? Statistics of texts need only its configuration and its tokenizer."""
        return self.signal_names != (TEXT,)

    @property
    def focus(self) -> FocusKind:
        """Which PFS the score is made of."""
        return "plain" if self.score is None else named_score(self.score).focus

    @property
    def score_form(self) -> Ablation:
        """The ablation of the CDS that make the score."""
        return self.ablation if self.score is None else named_score(self.score).form

    def score_layers(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the scored layers that make the score."""
        return layers if self.score is None else named_score(self.score).layers_of(layers)
