"""Compiling the kernels once, and computing without them."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from potstill.ops import kernels
from potstill.ops.attention import attention
from potstill.ops.fused import RMSNorm, SwiGLU, gelu
from tests.ops.conftest import RUNNABLE, FusedLayers, bf16, needed


@pytest.fixture
def fresh_kernel_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder and one for temporary files of its own, with nothing compiled yet."""
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    kernels.load_library.cache_clear()
    yield tmp_path
    kernels.load_library.cache_clear()


@needed
def test_kernels_are_compiled_once(
    fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernels.load_library() and not kernels.compiler_missing()
    (file,) = (fresh_kernel_cache / "cache").iterdir()
    assert file.name.startswith("kernels-") and file.suffix == ".so"
    kernels.load_library.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)
    assert kernels.load_library()


@pytest.mark.parametrize("fault", ["no compiler", "it fails", "no room", "no bf16"])
def test_without_kernels_pytorchs_operations_are_used(
    fault: str, fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler --flag")
    elif fault == "it fails":
        monkeypatch.setenv("CC", "false")
    elif fault == "no room":
        (fresh_kernel_cache / "cache").write_text("a file where the folder should be")
        (fresh_kernel_cache / "temporary").rmdir()
    else:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert kernels.load_library() is None
    assert kernels.compiler_missing() == (fault != "no bf16" and RUNNABLE)
    assert (
        fault == "no room"
        or not (fresh_kernel_cache / "cache").exists()
        or not any(fresh_kernel_cache.glob("cache/*"))
    )
    fused = FusedLayers((4, 4))
    assert not fused.product.adapters
    x = bf16(3, 5, 48)
    torch.testing.assert_close(
        fused.product(x).float(), fused.plain(x.float()), rtol=2**-5, atol=2**-4
    )
    assert SwiGLU.apply(bf16(2, 64)).shape == (2, 32)
    assert RMSNorm.apply(bf16(2, 48), torch.ones(48), 1e-5).shape == (2, 48)
    assert gelu(bf16(2, 48)).shape == (2, 48)
    assert attention(bf16(1, 3, 48), 1, 1).shape == (1, 3, 16)
