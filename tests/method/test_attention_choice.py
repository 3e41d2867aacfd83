"""Which attention `auto` takes on a GPU, by stand-ins of the kernels that compute plainly on the CPU."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ladm.errors import LackOfMemoryError, LadmError
from ladm.method import attention, attention_choice, attention_packages
from ladm.method.attention_choice import attention_kernel, choose_attention, kernel_problem
from ladm.modeling import devices
from ladm.scoring.plan import _recorded_attention
from support.attention import plain_attention
from support.models import SMALL
from support.paths import GOLDEN

OF_CUDA = {
    "fa3": "fa3", "fa4": "fa4", "flash-attn": "flash-attn", "cudnn": "aten-cudnn-cuda", "flash": "aten-flash-cuda",
    "efficient": "aten-efficient-cuda",
}  # fmt: skip
HOPPER, BLACKWELL = (9, 0), (10, 0)


class Machine:
    """A machine with a GPU: what is installed there, and which kernels compute wrong. Records what was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._set = monkeypatch.setattr
        self.tried: list[str] = []
        self.changes: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {}
        for name, kernel in OF_CUDA.items():
            monkeypatch.setitem(attention._KERNELS, kernel, self._kernel(name))
        probe = attention_choice._probe
        self._set(attention_choice, "_probe", lambda _device, *probed: probe("cpu", *probed))
        self._set(torch.cuda, "is_available", lambda: True)
        self.has(capability=HOPPER)

    def has(self, *packages: str, capability: tuple[int, int] | None = None, cudnn: int | None = 91600) -> None:
        """The packages beside torch, and the GPU."""
        self._set(attention_packages, "has_flash_attn", lambda: "flash-attn" in packages)
        self._set(attention_packages, "has_fa4", lambda: "fa4" in packages)
        self._set(attention_choice, "fa3_needs_no_fetching", lambda: "fa3" in packages)
        self._set(torch.backends.cudnn, "version", lambda: cudnn)
        if capability is not None:
            self._set(torch.cuda, "get_device_capability", lambda _device=None: capability)

    def _kernel(self, name: str) -> Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]:
        def kernel(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
            self.tried.append(name)
            out, lse = plain_attention(q, k, v, scaling)
            return self.changes[name](out, lse) if name in self.changes else (out.to(q.dtype), lse)

        return kernel


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def choose(dtype: torch.dtype = torch.bfloat16, **more: Any) -> str:
    return attention_kernel("cuda:0", dtype, **({"head_size": 128} | more))


def wrong_base(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    return out, lse / 0.6931


def fail(_out: Tensor, _lse: Tensor) -> tuple[Tensor, Tensor]:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


def test_a_requested_attention_is_taken_or_refused(machine: Machine) -> None:
    with pytest.raises(LadmError, match="device 'mps' is not supported"):
        attention_kernel("mps", torch.float32)
    assert {name: choose(requested=name) for name in ("cudnn", "flash", "efficient")} == {
        name: OF_CUDA[name] for name in ("cudnn", "flash", "efficient")
    }
    assert choose(torch.float32) == choose(torch.float32, requested="efficient") == "aten-efficient-cuda"
    assert attention_kernel("cpu", torch.bfloat16) == "aten-flash-cpu"
    with pytest.raises(LadmError, match="--attention cudnn does not work on cuda in float32; choose from efficient$"):
        choose(torch.float32, requested="cudnn")
    with pytest.raises(LadmError, match="--attention cudnn does not work on cpu in bfloat16; choose from flash$"):
        attention_kernel("cpu", torch.bfloat16, requested="cudnn")
    with pytest.raises(LadmError, match="the package is not installed"):
        choose(requested="flash-attn")
    machine.has("flash-attn")
    assert choose(requested="flash-attn") == "flash-attn"
    # What is requested is not tried before the model loads, whose check refuses it.
    assert machine.tried == []


def test_auto_takes_what_it_took_before_where_neither_fa3_nor_fa4_is_there(machine: Machine) -> None:
    """The kernel is part of a run's identity, which must not change by an update of ladm."""
    for capability, chosen in ((HOPPER, "aten-cudnn-cuda"), (BLACKWELL, "aten-cudnn-cuda"), ((8, 0), "flash-attn")):
        machine.has("flash-attn", capability=capability)
        assert choose() == chosen
        assert choose(head_size=256) == choose(head_size=100) == choose(head_size=None) == "flash-attn"
    machine.has("flash-attn", capability=(12, 0))
    assert choose() == "flash-attn"
    machine.has(capability=(8, 0))
    assert choose() == "aten-flash-cuda"
    for cudnn in (None, 91500):
        machine.has(capability=HOPPER, cudnn=cudnn)
        assert choose() == "aten-flash-cuda"


@pytest.mark.parametrize(
    ("capability", "order"),
    [
        (HOPPER, ["fa4", "fa3", "cudnn", "flash-attn", "flash", "efficient"]),
        (BLACKWELL, ["fa4", "cudnn", "flash-attn", "flash", "efficient"]),
        ((10, 3), ["fa4", "flash-attn", "flash", "efficient"]),
        ((8, 0), ["flash-attn", "flash", "efficient"]),
        ((12, 0), ["flash-attn", "flash", "efficient"]),
    ],
)
def test_a_kernel_that_fails_is_passed_over_for_the_next(
    machine: Machine, capability: tuple[int, int], order: list[str]
) -> None:
    machine.has("fa3", "fa4", "flash-attn", capability=capability)
    for count, name in enumerate(order):
        machine.tried.clear()
        choice = choose_attention("cuda:0", torch.bfloat16, head_size=64)
        assert (choice.kernel, machine.tried) == (OF_CUDA[name], order[: count + 1])
        assert len(choice.passed_over) == count
        machine.changes[name] = fail
    with pytest.raises(
        LadmError,
        match="^no attention kernel works on cuda:0 in bfloat16: attention efficient does not work here and is "
        "skipped: no kernel image is available for execution on the device$",
    ):
        choose()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (fail, "no kernel image is available for execution on the device"),
        (wrong_base, "its log-sum-exp is off by #"),
        (lambda out, lse: (out, lse * float("nan")), "its log-sum-exp is off by nan"),
        (lambda out, lse: (out.flip(2), lse), "its output is off by #"),
        (lambda out, lse: (out * 0, lse * 0), "its output is off by # and its log-sum-exp is off by #"),
    ],
)
def test_a_kernel_that_does_not_work_is_named_in_one_line(machine: Machine, change: Any, problem: str) -> None:
    machine.has("fa3")
    machine.changes["fa3"] = change
    choice = choose_attention("cuda:0", torch.bfloat16, head_size=128)
    assert choice.kernel == "aten-cudnn-cuda"
    (line,) = (re.sub(r"off by [\d.]+", "off by #", line) for line in choice.passed_over)
    assert line == f"attention fa3 does not work here and is skipped: {problem}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_size", [64, 100, 128, 256, None])
def test_a_kernel_with_the_rounding_of_half_precision_passes(
    machine: Machine, dtype: torch.dtype, head_size: int | None
) -> None:
    """That of a kernel which is there: torch's for a CPU."""
    assert machine.tried == []
    assert kernel_problem("aten-flash-cpu", device="cpu", dtype=dtype, head_size=head_size) is None


@pytest.mark.parametrize(("group_size", "expected"), [(1, (2, 2)), (8, (16, 2)), (None, (4, 2))])
def test_a_kernel_is_tried_with_as_many_query_heads_a_key_head_as_the_model_has(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, group_size: int | None, expected: tuple[int, int]
) -> None:
    heads: list[tuple[int, int]] = []

    def note(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        heads.append((q.shape[1], k.shape[1]))
        out, lse = plain_attention(q, k, v, scaling)
        return out.to(q.dtype), lse

    machine.has("fa4")
    monkeypatch.setitem(attention._KERNELS, "fa4", note)
    assert choose(group_size=group_size) == "fa4"
    assert heads == [expected]


def test_lack_of_memory_is_not_a_fault_of_the_kernel(machine: Machine) -> None:
    def full(_out: Tensor, _lse: Tensor) -> tuple[Tensor, Tensor]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    machine.changes["cudnn"] = full
    with pytest.raises(LackOfMemoryError, match="^not enough memory to try the attention kernel aten-cudnn-cuda"):
        choose()


def test_a_run_keeps_the_kernel_that_it_was_started_with(machine: Machine) -> None:
    machine.has("fa3", "flash-attn")
    for name in ("cudnn", "flash-attn", "flash"):
        assert choose_attention("cuda:0", torch.bfloat16, head_size=64, recorded=OF_CUDA[name]).kernel == OF_CUDA[name]
    assert machine.tried == []
    # One that is no longer there, or that of another device, cannot be kept: the resume is refused by the identity.
    for recorded in ("fa4", "aten-flash-cpu", "none"):
        assert choose_attention("cuda:0", torch.bfloat16, head_size=64, recorded=recorded).kernel == "fa3"


def test_only_stored_kernels_are_used_and_none_for_other_machines(machine: Machine) -> None:
    machine.has("fa3")
    assert choose() == "fa3"
    assert choose_attention("cuda:0", torch.bfloat16, head_size=64, elsewhere=True).kernel == "aten-cudnn-cuda"


def test_nothing_is_computed_where_no_model_will_run(machine: Machine) -> None:
    machine.has("fa3")
    machine.changes["fa3"] = fail
    assert choose_attention("cuda:0", torch.bfloat16, head_size=64, check=False).kernel == "fa3"
    assert machine.tried == []


def test_nothing_is_fetched_for_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the package `kernels`, and in the cache nothing, a kernel for another torch, one that fits, a broken one."""
    opened: list[str] = []

    def get_local_kernel(folder: Path, package_name: str) -> Any:
        assert package_name == "flash_attn3"
        opened.append(folder.name)
        if folder.name == "1":
            raise FileNotFoundError("no variant for this system")
        if folder.name == "3":
            raise ImportError("undefined symbol")
        return types.ModuleType("flash_attn3")

    package = types.ModuleType("kernels")
    package.get_local_kernel = get_local_kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kernels", package)
    monkeypatch.setattr(attention_packages, "has_fa3", lambda: True)
    monkeypatch.setenv("KERNELS_CACHE", str(tmp_path))
    found = []
    for snapshot in ("", "1", "2", "3"):
        attention_packages._load_stored_fa3.cache_clear()
        (tmp_path / "kernels--kernels-community--flash-attn3" / "snapshots" / snapshot / "build").mkdir(parents=True)
        monkeypatch.setattr(attention_packages, "stored_fa3", lambda name=snapshot: tmp_path / name if name else None)
        found.append(attention_packages.fa3_needs_no_fetching())
    attention_packages._load_stored_fa3.cache_clear()
    # The broken one is tried, so that the user learns what is wrong with it.
    assert (found, opened) == ([False, False, True, True], ["1", "2", "3"])
    monkeypatch.setattr(attention_packages, "has_fa3", lambda: False)
    assert not attention_packages.fa3_needs_no_fetching()


def test_a_flash_attn_that_does_not_fit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, but of another version or for another torch."""
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    assert not attention_packages.has_flash_attn()
    with pytest.raises(LadmError, match="^--attention flash-attn: the package is not installed, or not for this torch"):
        attention_kernel("cuda", torch.bfloat16, requested="flash-attn")


@pytest.fixture
def on_a_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A plan for CUDA, with a golden model's rows; nothing is loaded."""
    monkeypatch.setattr(devices, "resolve_devices", lambda *_, **__: ("cuda:0",))
    monkeypatch.setattr(devices, "resolve_backend", lambda *_: "torch")
    return machine


def test_what_was_passed_over_is_a_warning_and_what_was_chosen_is_in_the_plan(
    on_a_gpu: Machine, save_rows: Any, tmp_path: Path
) -> None:
    from ladm.corpus.rows.reading import open_rows
    from ladm.modeling.facts import model_facts
    from ladm.scoring.row_checks import plan_for_rows
    from ladm.settings.score import ScoreSettings

    on_a_gpu.has("fa4")
    on_a_gpu.changes["fa4"] = lambda out, lse: (out, lse * float("nan"))
    rows = save_rows([{"input_ids": list(range(256)), "index": 0}])
    settings = ScoreSettings(
        rows=rows, model=str(GOLDEN), output=str(tmp_path / "run"), span_tokens=4, dtype="bfloat16", fused="none",
        allow_other_tokenizer=True,
    )  # fmt: skip
    plan, lines = plan_for_rows(settings, open_rows(rows), model_facts(str(GOLDEN)))
    assert plan.hardware.attention == "aten-cudnn-cuda"
    assert [line for line in lines if "attention" in line] == [
        "warning   attention fa4 does not work here and is skipped: its log-sum-exp is off by nan"
    ]


def test_a_plan_reads_what_the_run_in_its_folder_was_started_with(ladm: Any, short_rows: str, tmp_path: Path) -> None:
    from ladm.settings.score import ScoreSettings

    def recorded(**more: Any) -> str | None:
        return _recorded_attention(ScoreSettings(rows=short_rows, output=str(tmp_path / "run"), **more))

    assert recorded() is None
    assert ladm("score", short_rows, *SMALL, "--output", tmp_path / "run", "--limit", "1").exit_code == 0
    assert recorded() == "aten-flash-cpu"
    assert recorded(overwrite=True) is None
    # A signal that is added to the run uses its kernel.
    added = ScoreSettings(rows=short_rows, output=str(tmp_path / "run" / "signals" / "context-gain"))
    assert _recorded_attention(added) == "aten-flash-cpu"
