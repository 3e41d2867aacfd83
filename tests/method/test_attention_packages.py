"""FlashAttention 3 and 4 by stand-ins of their interfaces, which compute plainly: no GPU, no package, no Hub."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled
from torch import Tensor

from ladm.errors import LackOfMemoryError, LadmError
from ladm.method import attention_packages
from ladm.method.attention import causal_attention
from ladm.method.attention_choice import attention_kernel
from support.attention import draw, plain_attention

Lse = Callable[[Tensor], Tensor]


class FakeKernels(types.ModuleType):
    """The package `kernels`: counts what is loaded, and from where."""

    def __init__(self, *, change: Lse = lambda lse: lse, problem: BaseException | None = None) -> None:
        super().__init__("kernels")
        self.__spec__ = importlib.machinery.ModuleSpec("kernels", None)
        self.change, self.problem = change, problem
        self.fetched: list[tuple[str, int]] = []
        self.opened: list[Path] = []

    def get_kernel(self, repo_id: str, *, version: int) -> Any:
        if self.problem is not None:
            raise self.problem
        self.fetched.append((repo_id, version))
        return types.SimpleNamespace(flash_attn_func=self.flash_attn_func)

    def get_local_kernel(self, repo_path: Path, package_name: str) -> Any:
        assert package_name == "flash_attn3"
        self.opened.append(repo_path)
        if not (repo_path / "build" / "for-this-torch").exists():
            raise FileNotFoundError(f"Could not find package '{package_name}' in {repo_path}")
        return types.SimpleNamespace(flash_attn_func=self.flash_attn_func)

    def flash_attn_func(
        self, q: Tensor, k: Tensor, v: Tensor, *, softmax_scale: float, causal: bool, **more: Any
    ) -> Any:
        """Takes and gives heads behind tokens; the log-sum-exp is (B, H, T), as FlashAttention 3 returns it."""
        assert causal
        assert more == {"return_attn_probs": True}
        out, lse = plain_attention(*(x.transpose(1, 2) for x in (q, k, v)), softmax_scale)
        return out.transpose(1, 2), self.change(lse)


class FakeNewerKernels(FakeKernels):
    """From version 0.14 on, which finds the name of the module by itself."""

    def get_local_kernel(self, repo_path: Path, *, backend: str | None = None) -> Any:  # type: ignore[override]
        assert backend is None
        return super().get_local_kernel(repo_path, "flash_attn3")


def forget_loaded() -> None:
    attention_packages.fa3_kernel.cache_clear()
    attention_packages._load_stored_fa3.cache_clear()


@pytest.fixture
def install_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., FakeKernels]]:
    """Put a stand-in of the package in place, with an empty cache."""
    forget_loaded()
    monkeypatch.setenv("KERNELS_CACHE", str(tmp_path / "cache"))

    def install(kind: type[FakeKernels] = FakeKernels, **how: Any) -> FakeKernels:
        package = kind(**how)
        monkeypatch.setitem(sys.modules, "kernels", package)
        return package

    yield install
    forget_loaded()


def store(cache: Path, commit: str, *variants: str, kind: str = "kernels", when: int = 1) -> Path:
    """A copy of the kernel in the Hub's cache."""
    snapshot = cache / f"{kind}--kernels-community--flash-attn3" / "snapshots" / commit
    for variant in variants:
        (snapshot / "build" / variant).mkdir(parents=True)
    os.utime(snapshot / "build", (when, when))
    return snapshot


def equals_plain_attention(kernel: str, *, D: int = 24) -> None:
    """Grouped keys, a scaling that is not the usual one, several rows, an odd number of tokens."""
    q, k, v = draw(2, 6, 2, 77, D)
    out, lse = causal_attention(q, k, v, scaling=0.3, kernel=kernel)
    expected_out, expected_lse = plain_attention(q, k, v, 0.3)
    assert (out.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:-1], torch.float32)
    assert torch.allclose(out, expected_out, atol=1e-6)
    assert torch.allclose(lse, expected_lse, atol=1e-5)


def test_fa3_is_used_as_its_interface_says_and_loaded_once(install_kernels: Any) -> None:
    package = install_kernels()
    assert attention_kernel("cuda", torch.bfloat16, requested="fa3") == "fa3"
    equals_plain_attention("fa3")
    equals_plain_attention("fa3")
    assert package.fetched == [("kernels-community/flash-attn3", 1)]


def test_a_log_sum_exp_of_fa3_that_is_padded_is_cut(install_kernels: Any) -> None:
    install_kernels(change=lambda lse: torch.nn.functional.pad(lse, (0, 51)))
    equals_plain_attention("fa3")


@pytest.mark.parametrize("kind", [FakeKernels, FakeNewerKernels])
def test_a_stored_fa3_is_used_without_the_hub(kind: type[FakeKernels], install_kernels: Any, tmp_path: Path) -> None:
    """The newest copy, whichever kind of repository it was stored as; one for another torch is fetched again."""
    package = install_kernels(kind)
    store(tmp_path / "cache", "a" * 40, "for-this-torch", kind="models")
    newest = store(tmp_path / "cache", "b" * 40, "for-this-torch", when=2)
    equals_plain_attention("fa3")
    assert (package.opened, package.fetched) == ([newest], [])
    forget_loaded()
    store(tmp_path / "cache", "c" * 40, "for-another-torch", when=3)
    equals_plain_attention("fa3")
    assert len(package.fetched) == 1


def test_an_absent_package_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_packages, "has_fa3", lambda: False)
    with pytest.raises(
        LadmError,
        match="^--attention fa3: the package kernels is not installed, or not for this torch; run pip install kernels$",
    ):
        attention_kernel("cuda", torch.bfloat16, requested="fa3")
    monkeypatch.setattr(attention_packages, "has_fa4", lambda: False)
    with pytest.raises(
        LadmError,
        match=r"^--attention fa4: FlashAttention 4 is not installed, or not for this torch; run pip install '.\[fa4\]'",
    ):
        attention_kernel("cuda", torch.bfloat16, requested="fa4")


@pytest.mark.parametrize(
    "problem",
    [
        OfflineModeIsEnabled("Cannot reach the Hub: offline mode is enabled.\nUnset HF_HUB_OFFLINE."),
        LocalEntryNotFoundError("An error happened while trying to locate the files on the Hub"),
        EntryNotFoundError("no such entry"),
        OSError("libcudart.so.12: cannot open shared object file"),
        ValueError("Version 1 not found, available versions: "),
    ],
)
def test_a_kernel_that_cannot_be_loaded_is_one_line(
    install_kernels: Any, golden_observer: Any, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    install_kernels(problem=problem)
    monkeypatch.setattr(golden_observer, "attention", "fa3")
    with pytest.raises(LadmError) as caught:
        golden_observer.check()
    text = str(caught.value)
    assert text.startswith(
        f"--attention fa3: kernels-community/flash-attn3 cannot be loaded ({type(problem).__name__}: "
        + str(problem).split("\n")[0].split(":")[0].strip()
    )
    assert text.endswith("); fetch it where the Hub can be reached, or choose another --attention")
    assert "\n" not in text


def test_lack_of_memory_while_a_kernel_is_loaded_is_called_that(install_kernels: Any) -> None:
    install_kernels(problem=MemoryError())
    with pytest.raises(LackOfMemoryError, match="^not enough memory to load kernels-community/flash-attn3"):
        causal_attention(*draw(1, 2, 2, 8, 8), scaling=1.0, kernel="fa3")


class CompilerError(Exception):
    """A kind that only a kernel's compiler knows."""


@pytest.mark.parametrize("problem", [OSError("libcuda.so.1: no such file"), CompilerError("no\nsuch architecture")])
def test_whatever_a_kernel_raises_at_load_is_one_line(
    install_kernels: Any, golden_observer: Any, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def fail(_lse: Tensor) -> Tensor:
        raise problem

    install_kernels(change=fail)
    monkeypatch.setattr(golden_observer, "attention", "fa3")
    what = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    with pytest.raises(LadmError, match="they fail with ladm's attention function ") as caught:
        golden_observer.check()
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [lambda lse: lse / 0.6931, lambda lse: lse.flip(-1), lambda lse: lse * float("nan")])
def test_a_wrong_log_sum_exp_of_fa3_is_found_before_the_first_row(
    install_kernels: Any, golden_observer: Any, monkeypatch: pytest.MonkeyPatch, change: Lse
) -> None:
    """To the base 2, of tokens in the wrong order, and not a number."""
    package = install_kernels()
    monkeypatch.setattr(golden_observer, "attention", "fa3")
    golden_observer.check()
    package.change = change
    with pytest.raises(LadmError, match="^fa3 gives a wrong log-sum-exp here .* choose another --attention$"):
        golden_observer.check()


class FakeFlashAttention4:
    """The function of FlashAttention 4, which takes and gives heads behind tokens."""

    def __init__(self) -> None:
        self.change: Lse = lambda lse: lse

    def flash_attn_func(
        self, q: Tensor, k: Tensor, v: Tensor, *, softmax_scale: float, causal: bool, return_lse: bool = False
    ) -> Any:
        assert causal
        assert return_lse
        assert q.shape[-1] % 8 == 0
        out, lse = plain_attention(*(x.transpose(1, 2) for x in (q, k, v)), softmax_scale)
        return out.transpose(1, 2), self.change(lse)


@pytest.fixture
def fa4(monkeypatch: pytest.MonkeyPatch) -> FakeFlashAttention4:
    """The package flash-attn-4 with a stand-in of its function."""
    fake = FakeFlashAttention4()
    install_fa4(monkeypatch, fake.flash_attn_func)
    return fake


@pytest.fixture(autouse=True)
def forget_fa4() -> Iterator[None]:
    """The function is looked up once a process, and here it changes."""
    attention_packages.fa4_function.cache_clear()
    yield
    attention_packages.fa4_function.cache_clear()


def install_fa4(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any] | None) -> None:
    package, module = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.cute")
    package.__path__ = []  # type: ignore[attr-defined]
    if function is not None:
        module.flash_attn_func = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", module)


@pytest.mark.usefixtures("fa4")
def test_fa4_is_used_as_its_interface_says() -> None:
    assert attention_kernel("cuda", torch.bfloat16, requested="fa4") == "fa4"
    equals_plain_attention("fa4")
    # A head size that is no multiple of 8 is padded with zeros, which change neither logits nor output.
    equals_plain_attention("fa4", D=20)


def test_what_the_compiler_of_fa4_says_of_its_own_code_is_not_shown(
    fa4: FakeFlashAttention4, recwarn: pytest.WarningsRecorder
) -> None:
    def compile_first(lse: Tensor) -> Tensor:
        warnings.warn("Argument aux_data (position 17) cannot be converted to a JitArgument for function", stacklevel=1)
        warnings.warn("the driver is too old", stacklevel=1)
        return lse

    fa4.change = compile_first
    equals_plain_attention("fa4")
    assert [str(warning.message) for warning in recwarn] == ["the driver is too old"]


def test_a_wrong_log_sum_exp_of_fa4_is_found_before_the_first_row(
    fa4: FakeFlashAttention4, golden_observer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden_observer, "attention", "fa4")
    golden_observer.check()
    fa4.change = lambda lse: lse / 0.6931
    with pytest.raises(LadmError, match="^fa4 gives a wrong log-sum-exp here .* choose another --attention$"):
        golden_observer.check()


def test_an_fa4_that_does_not_compile_is_one_line(golden_observer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, return_lse: bool, **more: Any) -> Any:  # noqa: ARG001
        raise RuntimeError("cannot compile\nthis")

    install_fa4(monkeypatch, fail)
    monkeypatch.setattr(golden_observer, "attention", "fa4")
    with pytest.raises(LadmError, match="RuntimeError: cannot compile") as caught:
        golden_observer.check()
    assert "\n" not in str(caught.value)


def test_a_flash_attention_4_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There as a package, but without the function, or with one that cannot give the log-sum-exp."""

    def old(q: Tensor, k: Tensor, v: Tensor, *, softmax_scale: float, causal: bool) -> None: ...

    install_fa4(monkeypatch, None)
    assert not attention_packages.has_fa4()
    install_fa4(monkeypatch, old)
    assert not attention_packages.has_fa4()

    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no driver for {name}")

    monkeypatch.setitem(sys.modules, "flash_attn.cute", Broken("flash_attn.cute"))
    assert not attention_packages.has_fa4()
