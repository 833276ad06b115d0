"""The compiled 8-bit GRU against its plain formula and against torch."""

import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from potstill.ops import int8_library
from potstill.ops.gru_int8 import CompiledGRU, Int8GRU, Int8Layer, plain_gru_int8

FEATURES = int8_library._cpu_features()
# Name, flags, tiles: every variant that this CPU can run, and the plain loop of other CPUs.
VARIANTS = {
    "tiles": ("vnni", True),
    "vnni": ("vnni", False),
    "avx2": ("avx2", False),
    "generic": ("generic", False),
}


def variant(name: str) -> object:
    kind, tiles = VARIANTS[name]
    needed, flags = int8_library.VARIANTS.get(kind, (set(), []))
    if not needed <= FEATURES:
        pytest.skip(f"the CPU has no {kind}")
    library = int8_library.load_variant(kind, flags, tiles)
    if library is None:
        pytest.skip("there is no C compiler")
    return library


def rounded(matrix: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    scale = matrix.abs().amax(-1) / 127
    return torch.round(matrix / scale[..., None]).to(torch.int8).numpy(), scale.numpy()


def network_and_torch(
    layers: int, directions: int, hidden: int, inputs: int
) -> tuple[Int8GRU, torch.nn.Embedding, torch.nn.GRU]:
    """A random network, and the same in torch with the rounded weights."""
    torch.manual_seed(hidden)
    rnn = torch.nn.GRU(inputs, hidden, layers, batch_first=True, bidirectional=directions == 2)
    embedding = torch.nn.Embedding(30, inputs)
    table, table_scale = rounded(embedding.weight.detach())
    embedding.weight.data = torch.from_numpy(table * table_scale[:, None])
    stack = []
    for k in range(layers):
        arrays = []
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            parts = []
            for ending in ("", "_reverse")[:directions]:
                parameter = getattr(rnn, f"{kind}_l{k}{ending}")
                if "weight" in kind:
                    # Wider than torch's, so that gates open and close.
                    values, scale = rounded(2 * parameter.detach())
                    parameter.data = torch.from_numpy(values * scale[:, None])
                r, z, n = parameter.detach().split(hidden)
                parts.append(torch.cat([z, r, n]))
            gates = torch.stack(parts)
            arrays += rounded(gates) if "weight" in kind else [gates.numpy()]
        stack.append(Int8Layer(*arrays))
    return Int8GRU(table, table_scale, stack), embedding, rnn


def sentences(lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 30, length).tolist() for length in lengths]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("layers", "directions", "hidden", "inputs"),
    [(1, 1, 64, 64), (2, 2, 64, 128), (2, 2, 24, 20), (3, 1, 100, 12)],
)
def test_compiled_equals_the_plain_formula(
    name: str, layers: int, directions: int, hidden: int, inputs: int
) -> None:
    network, _, _ = network_and_torch(layers, directions, hidden, inputs)
    compiled = CompiledGRU(network, variant(name))
    # More sentences than are computed together, in no order, of unlike length, some equal.
    tokens = sentences([1, 9, 3, 40, 2, 9, 9, 1, *range(1, 20), 5])
    features, states = compiled.features(tokens, states=True)
    errors = []
    for i, sentence in enumerate(tokens):
        expected, expected_states = plain_gru_int8(network, sentence)
        # Now and then a state is rounded the other way, as fp32 is; the steps after it show that.
        assert np.abs(states[i] - expected_states).max() < 0.03
        assert np.abs(features[i] - expected).max() < 0.03
        errors.append(np.abs(states[i] - expected_states).ravel())
    assert np.mean(np.concatenate(errors)) < 5e-4
    np.testing.assert_array_equal(compiled.features(tokens)[0], features)


def test_all_variants_round_alike() -> None:
    network, _, _ = network_and_torch(2, 2, 64, 64)
    tokens = sentences([7, 12, 3])
    features = []
    for name in VARIANTS:
        try:
            features.append(CompiledGRU(network, variant(name)).features(tokens)[0])
        except pytest.skip.Exception:
            continue
    for other in features[1:]:
        assert np.abs(other - features[0]).mean() < 1e-3


def test_the_plain_formula_is_torchs_gru_but_for_rounding() -> None:
    network, embedding, rnn = network_and_torch(2, 2, 64, 32)
    (tokens,) = sentences([15])
    features, states = plain_gru_int8(network, tokens)
    with torch.no_grad():
        expected = rnn(embedding(torch.tensor([tokens])))[0][0].numpy()
    assert np.abs(states - expected).mean() < 0.01
    last = np.concatenate([expected[-1, :64], expected[0, 64:]])
    assert np.abs(features[:128] - last).mean() < 0.01
    assert np.abs(features[128:] - expected.max(0)).mean() < 0.01


@pytest.mark.parametrize("name", VARIANTS)
def test_answers_do_not_depend_on_the_company(name: str) -> None:
    network, _, _ = network_and_torch(2, 2, 64, 64)
    compiled = CompiledGRU(network, variant(name))
    tokens = sentences([4, 11, 1, 600, 7] * 8 + list(range(1, 30)))
    together = compiled.features(tokens)[0]
    alone = np.concatenate([compiled.features([sentence])[0] for sentence in tokens])
    np.testing.assert_array_equal(together, alone)


def test_threads_give_the_same() -> None:
    network, _, _ = network_and_torch(1, 2, 64, 64)
    compiled = CompiledGRU(network, variant("generic"))
    parts = [sentences([3, 8, 5, 1, n]) for n in range(1, 40)]
    alone = [compiled.features(part)[0] for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda part: compiled.features(part)[0], parts))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [64, 100])
def test_linear_is_numpys_product(width: int) -> None:
    network, _, _ = network_and_torch(1, 1, 64, 64)
    rng = np.random.default_rng(0)
    shapes = (50, width), (7, width), (7,)
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    found = CompiledGRU(network, variant("generic")).linear(x, weight, bias)
    np.testing.assert_allclose(found, x @ weight.T + bias, atol=1e-4)


def test_extreme_weights_saturate_the_gates() -> None:
    """Sums as large as 8 bits allow: no overflow, no infinity."""
    hidden = 64
    ones = np.full((1, 3 * hidden, hidden), 127, np.int8)
    scale = np.full((1, 3 * hidden), 10.0, np.float32)
    bias = np.full((1, 3 * hidden), -1e4, np.float32)
    table = np.tile(np.array([[127], [-127]], np.int8), (1, hidden))
    layer = Int8Layer(ones, scale, ones, scale, bias, -bias)
    network = Int8GRU(table, np.ones(2, np.float32), [layer])
    for name in VARIANTS:
        try:
            compiled = CompiledGRU(network, variant(name))
        except pytest.skip.Exception:
            continue
        for tokens in ([0, 0, 1], [1, 0, 1, 1]):
            found, expected = compiled.features([tokens])[0][0], plain_gru_int8(network, tokens)[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("tokens", [[[]], [[1], []], [[30]], [[-1]], [[1, 2**40]]])
def test_tokens_that_the_memory_does_not_have_are_refused(tokens: list[list[int]]) -> None:
    network, _, _ = network_and_torch(1, 1, 64, 64)
    compiled = CompiledGRU(network, variant("generic"))
    with pytest.raises((ValueError, OverflowError)):
        compiled.features(tokens)
    assert compiled.features([])[0].shape == (0, 128)


@pytest.fixture
def fresh_kernel_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder and one for temporary files of its own, with nothing compiled yet."""
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    int8_library.load_library.cache_clear()
    yield tmp_path / "cache"
    int8_library.load_library.cache_clear()


@pytest.mark.skipif(int8_library.load_library() is None, reason="there are no kernels here")
def test_kernels_are_compiled_once(
    fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert int8_library.load_library()
    (file,) = fresh_kernel_cache.iterdir()
    assert file.name.startswith("gru_int8-") and file.suffix == ".so"
    int8_library.load_library.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)
    assert int8_library.load_library()


@pytest.mark.skipif(int8_library.load_library() is None, reason="there are no kernels here")
@pytest.mark.parametrize("fault", ["no room", "no home"])
def test_without_a_cache_folder_a_temporary_one_serves(
    fault: str, fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no room":
        fresh_kernel_cache.write_text("a file where the folder should be")
    else:
        for name in ("POTSTILL_CACHE", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("no home")))
    assert int8_library.load_library()
    (folder,) = (fresh_kernel_cache.parent / "temporary").iterdir()
    assert [file.suffix for file in folder.iterdir()] == [".so"]
    folder.chmod(0o777)  # now anybody could put something there
    int8_library.load_library.cache_clear()
    assert int8_library.load_library() is None


@pytest.mark.parametrize("fault", ["no compiler", "it fails", "no room", "another CPU"])
def test_without_kernels_there_is_no_library(
    fault: str, fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler --flag")
    elif fault == "it fails":
        monkeypatch.setenv("CC", "false")
    elif fault == "no room":
        fresh_kernel_cache.write_text("a file where the folder should be")
        (fresh_kernel_cache.parent / "temporary").rmdir()
    else:
        monkeypatch.setattr(int8_library.platform, "machine", lambda: "riscv64")
    assert int8_library.load_library() is None
