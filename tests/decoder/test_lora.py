"""LoRALinear against PEFT's layer, against its own formula and against finite differences."""

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import (
    LoRALinear,
    add_lora,
    features,
    linear_names,
    lora_layers,
    merge,
    norm_names,
)
from potstill.errors import UserError

INPUTS, OUTPUTS = 12, 20
SHAPE = (3, 5, INPUTS)
LAYERS = {
    "linear": lambda: nn.Linear(INPUTS, OUTPUTS),
    "linear without bias": lambda: nn.Linear(INPUTS, OUTPUTS, bias=False),
    "Conv1D": lambda: Conv1D(OUTPUTS, INPUTS),
}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=LAYERS)
def base(request) -> nn.Module:
    torch.manual_seed(0)
    layer = LAYERS[request.param]()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def adapted(base, rank=4, alpha=6.0, dropout=0.0) -> LoRALinear:
    """A layer as after some training: its V is no longer zero."""
    layer = LoRALinear(base, rank, alpha, dropout)
    nn.init.normal_(layer.V)
    return layer


def fused(*layers):
    """The layers, side by side, by the product that training uses."""
    return FusedLinear(layers)


def outcome(function, x, weights, *parameters):
    """Outputs, and the gradients of x and the parameters under a weighted sum of them."""
    x = x.clone().requires_grad_()
    y = function(x)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *parameters])]


@pytest.mark.parametrize(("rank", "alpha"), [(1, 2.0), (4, 8.0), (8, 3.0), (12, 12.0)])
def test_forward_and_gradients_are_pefts(base, rank, alpha):
    layer = adapted(base, rank, alpha)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=["0"],
        fan_in_fan_out=isinstance(base, Conv1D),
    )
    reference = peft.get_peft_model(nn.Sequential(base), config)
    theirs = reference.base_model.model[0]
    A, B = theirs.lora_A.default.weight, theirs.lora_B.default.weight
    with torch.no_grad():
        A.copy_(layer.U)
        B.copy_(layer.V)
    x, weights = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUTPUTS)
    expected = outcome(reference, x, weights, A, B)
    for ours in (layer, fused(layer)):
        torch.testing.assert_close(outcome(ours, x, weights, layer.U, layer.V), expected, **CLOSE)
    torch.testing.assert_close(layer.delta(), layer.scaling * (B @ A), **CLOSE)


def test_starts_as_exactly_its_base(base):
    layer = LoRALinear(base, 4, 8.0)
    x = torch.randn(SHAPE)
    assert torch.equal(layer(x), base(x))
    assert torch.equal(fused(layer)(x), base(x))


def test_U_starts_kaiming_uniform_as_in_peft():
    layer = LoRALinear(nn.Linear(400, 400), 50, 8.0)
    bound = 400**-0.5
    assert layer.U.abs().max() <= bound
    assert layer.U.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def mixed_layers(base) -> list[nn.Module]:
    """Layers that share their input: two adapted, of different ranks, and one that is not."""
    return [
        adapted(base, 3, 5.0),
        nn.Linear(INPUTS, 7).requires_grad_(False),
        adapted(nn.Linear(INPUTS, 9), 2, 1.0),
    ]


def factors(layers) -> list[nn.Parameter]:
    return [f for layer in layers if isinstance(layer, LoRALinear) for f in (layer.U, layer.V)]


def test_fused_product_is_the_formula_layer_by_layer(base):
    layers = mixed_layers(base)
    x, weights = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUTPUTS + 7 + 9)

    def plain(x):
        return torch.cat([layer(x) for layer in layers], dim=-1)

    actual = outcome(fused(*layers), x, weights, *factors(layers))
    expected = outcome(plain, x, weights, *factors(layers))
    torch.testing.assert_close(actual, expected, **CLOSE)


def test_fused_gradients_are_finite_differences(base):
    layers = [layer.double() for layer in mixed_layers(base)]
    x = torch.randn(2, 3, INPUTS, dtype=torch.float64, requires_grad=True)
    product = fused(*layers)
    # The factors are read from the layers: gradcheck moves them where they are.
    assert torch.autograd.gradcheck(lambda x, *_: product(x), (x, *factors(layers)))


def test_fused_without_adapters_is_the_base(base):
    x, weights = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUTPUTS)
    base.requires_grad_(False)
    expected = outcome(base, x, weights)
    torch.testing.assert_close(outcome(fused(base), x, weights), expected, **CLOSE)


@pytest.mark.parametrize("shape", [(1, INPUTS), (7, INPUTS), (2, 3, 4, INPUTS)])
def test_any_number_of_leading_dimensions(base, shape):
    layer = adapted(base)
    x = torch.randn(shape)
    torch.testing.assert_close(fused(layer)(x), layer(x), **CLOSE)


def test_strided_inputs_and_gradients(base):
    layer = adapted(base)
    x = torch.randn(5, INPUTS, 3).transpose(1, 2)
    reference = layer(x.contiguous())
    y = fused(layer)(x)
    torch.testing.assert_close(y, reference, **CLOSE)
    # A gradient that is an expanded scalar has strides of 0.
    y.sum().backward()
    expected = torch.autograd.grad(reference.sum(), [layer.U, layer.V])
    torch.testing.assert_close([layer.U.grad, layer.V.grad], list(expected), **CLOSE)


@pytest.mark.parametrize("path", ["plain", "fused"])
def test_only_U_and_V_are_trained(base, path):
    layer = adapted(base)
    function = layer if path == "plain" else fused(layer)
    function(torch.randn(SHAPE)).sum().backward()
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {"U", "V"}
    assert all(parameter.grad is None for parameter in layer.base.parameters())
    assert layer.U.grad.abs().min() > 0
    assert layer.V.grad.abs().min() > 0


def test_bf16_base_is_within_bf16_noise(base):
    layer = adapted(base)
    x, weights = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUTPUTS)
    exact = outcome(layer, x, weights, layer.U, layer.V)
    base.bfloat16()
    rounded = outcome(fused(layer), x.bfloat16(), weights.bfloat16(), layer.U, layer.V)
    for ours, reference in zip(rounded, exact, strict=True):
        error = (ours.float() - reference).norm() / reference.norm()
        assert 0 < error < 2**-6
    dtypes = [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    assert [values.dtype for values in rounded] == dtypes


@pytest.mark.parametrize("path", ["plain", "fused"])
def test_dropout_is_on_the_update_only(base, path):
    layer = adapted(base, dropout=0.5)
    function = layer if path == "plain" else fused(layer)
    x = torch.ones(4000, INPUTS)
    update = (function(x) - base(x)).detach()
    # Every input of the update is dropped or doubled; on average nothing changes.
    expected = x[0] @ layer.delta().T
    assert update.std(0).min() > 0.1
    noise = update.std(0) / len(x) ** 0.5
    assert ((update.mean(0) - expected).abs() < 5 * noise).all()
    nn.init.zeros_(layer.V)
    assert torch.equal(function(x), base(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_under_dropout_are_those_of_the_remaining_inputs(base, dtype):
    """Against the plain formula with the same inputs zeroed."""
    layer = adapted(base, dropout=0.4)
    base.to(dtype)
    x, weights = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUTPUTS)
    torch.manual_seed(1)
    ours = outcome(fused(layer), x.to(dtype), weights.to(dtype), layer.U, layer.V)
    torch.manual_seed(1)
    mask = layer.dropout.mask(torch.ones(SHAPE, dtype=dtype)).float()
    base.float()

    def formula(x):
        return base(x) + layer.scaling * ((x * mask) @ layer.U.T @ layer.V.T)

    exact = outcome(formula, x, weights, layer.U, layer.V)
    for value, reference in zip(ours, exact, strict=True):
        error = (value.float() - reference).norm() / reference.norm()
        assert error < (1e-5 if dtype == torch.float32 else 2**-6)


def test_no_dropout_in_evaluation(base):
    layer = adapted(base, dropout=0.5).eval()
    without = LoRALinear(base, 4, 6.0)
    without.load_state_dict(layer.state_dict())
    x = torch.randn(SHAPE)
    torch.testing.assert_close(layer(x), without(x), **CLOSE)
    torch.testing.assert_close(fused(layer)(x), without(x), **CLOSE)


@pytest.mark.parametrize("rank", [-1, 0, INPUTS + 1])
def test_rank_out_of_range_is_refused(base, rank):
    with pytest.raises(UserError, match=f"`LoRA_rank` {rank} .* 1 to {INPUTS}"):
        LoRALinear(base, rank, 8.0)


def test_merged_is_the_same_function(base):
    layer = adapted(base)
    x = torch.randn(SHAPE)
    expected = layer(x).detach()
    assert layer.merged() is base
    torch.testing.assert_close(base(x), expected, **CLOSE)


def test_features(base):
    assert features(base) == (INPUTS, OUTPUTS)


def test_other_layers_are_not_adapted():
    with pytest.raises(TypeError, match="Embedding"):
        LoRALinear(nn.Embedding(3, 4), 1, 1.0)


LINEAR = {
    "tiny-gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "tiny-llama": [
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    ],
}
NORMS = {
    "tiny-gpt2": ["ln_1", "ln_2"],
    "tiny-llama": ["input_layernorm", "post_attention_layernorm"],
}
BLOCKS = {"tiny-gpt2": "h", "tiny-llama": "layers"}
LAST_NORM = {"tiny-gpt2": "ln_f", "tiny-llama": "norm"}


def test_names_of_linear_layers_and_norms(tiny_decoder):
    kind, base = tiny_decoder.title, tiny_decoder.base()
    blocks = [f"{BLOCKS[kind]}.{i}" for i in range(2)]
    assert sorted(linear_names(base)) == sorted(f"{b}.{n}" for b in blocks for n in LINEAR[kind])
    norms = [f"{b}.{n}" for b in blocks for n in NORMS[kind]]
    assert sorted(norm_names(base)) == sorted([*norms, LAST_NORM[kind]])


def test_add_freezes_the_rest_and_merge_takes_the_layers_out(tiny_decoder):
    decoder = tiny_decoder.base()
    names = linear_names(decoder)[:3]
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    add_lora(decoder, names, rank=2, alpha=4.0)
    assert sorted(name for name, _ in lora_layers(decoder)) == sorted(names)
    trainable = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert trainable == {f"{name}.{matrix}" for name in names for matrix in "UV"}
    merge(decoder)
    assert not list(lora_layers(decoder))
    after = decoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in after.items())
