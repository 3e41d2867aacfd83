"""What `--device`, `--dtype` and `--backend` come to, with devices that are not there."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from ladm.errors import LadmError, UsageError
from ladm.modeling.devices import resolve_backend, resolve_devices, resolve_dtype


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("gpus")
def test_devices_of_a_machine_with_gpus() -> None:
    everything = ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert resolve_devices("auto") == resolve_devices("cuda") == everything
    assert resolve_devices("cuda:2,0") == ("cuda:2", "cuda:0")
    assert resolve_devices("cpu", workers=2) == ("cpu", "cpu")
    # Each of a launcher's processes takes its own device, or the devices that were named.
    assert [resolve_devices("auto", rank=rank) for rank in (1, 6)] == [("cuda:1",), ("cuda:2",)]
    assert resolve_devices("cuda:3", rank=1) == ("cuda:3",)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("requested", "workers", "kind", "message"),
    [
        ("cuda:4", None, LadmError, "--device cuda:4: there are 4 CUDA devices here, cuda:0 to cuda:3"),
        ("cuda", 2, UsageError, "--workers is for a CPU; on CUDA, one process runs on each device of --device"),
    ],
)
def test_devices_that_are_refused(requested: str, workers: int | None, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as refused:
        resolve_devices(requested, workers=workers)
    assert str(refused.value) == message


@pytest.mark.usefixtures("gpus")
def test_the_only_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(LadmError, match="^--device cuda:1: the only CUDA device here is cuda:0$"):
        resolve_devices("cuda:1")


def test_devices_of_a_machine_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_devices("auto") == ("cpu",)
    with pytest.raises(LadmError, match=r"^--device cuda: no CUDA device here; use --device cpu$"):
        resolve_devices("cuda")


@pytest.mark.parametrize(("capability", "chosen"), [((9, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_the_dtype_of_a_gpu(capability: tuple[int, int], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_dtype("auto", "cuda:0") == chosen
    assert resolve_dtype("float16", "cuda:0") == torch.float16


@pytest.mark.parametrize(("has_amx", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_dtype_of_a_cpu(has_amx: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    assert resolve_dtype("auto", "cpu") == chosen
    assert resolve_dtype("float32", "cpu") == torch.float32


def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backend("auto", "cpu") == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert resolve_backend("auto", "cuda:0") == "triton"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(LadmError, match="^--backend triton needs a CUDA device, not cpu; use --backend torch$"):
        resolve_backend("triton", "cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert resolve_backend("auto", "cuda:0") == "torch"
    with pytest.raises(LadmError, match="triton is not installed"):
        resolve_backend("triton", "cuda:0")
