"""The training loop against a plain one in torch; what it trains and what stays frozen."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from potstill.data.batching import UNLABELLED, Batch, LabelledDataset, length_batches
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.hub import find_base_model
from potstill.metrics import score
from potstill.training import loop
from potstill.training.distributed import predict_logits
from potstill.training.optim import lr_factor
from potstill.training.precision import cast_frozen_to_bf16
from tests.training.test_checkpoint import interrupted_after_epoch
from tests.training.toy import (
    DEV,
    DEVICE,
    HOLDOUT,
    SEED,
    SETTINGS,
    TRAIN,
    Run,
    equal,
    scaled_loss,
    student,
)


def test_unlabelled_sentences_are_trained_on_but_not_scored(tmp_path):
    """With a loss that takes them for label 1, all are called 1, and the scores are the others'."""
    labels = [label if i % 3 else UNLABELLED for i, label in enumerate(TRAIN.labels)]
    mixed = LabelledDataset(TRAIN.tokens, labels)
    seen = []

    def loss(logits, batch):
        seen.extend(batch.indices.tolist())
        return nn.functional.cross_entropy(logits, torch.ones_like(logits[:, 0]).long())

    run = Run(tmp_path / "s", epochs=1, dataset=mixed, loss_function=loss, model=student())
    assert sorted(seen) == list(range(len(labels)))
    known = [label for label in labels if label != UNLABELLED]
    record = run.trained.history[0]["train"]
    assert 0 < record["accuracy"] < 1
    assert round(record["accuracy"] * len(known), 6) % 1 == 0


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_lora_training_equals_a_plain_loop_in_torch(tiny_decoder, tmp_path, bf16):
    """A decoder with LoRA, by backward() and an optimizer that is not fused."""
    models = []
    for _ in range(2):
        torch.manual_seed(2)
        models.append(build_lora_classifier(tiny_decoder.base(), 2, rank=2, alpha=4))
        nn.init.normal_(models[-1].score.weight, std=0.02)
        if bf16:
            cast_frozen_to_bf16(models[-1].base)
    run = Run(tmp_path / "s", epochs=2, model=models[0], evaluations={})
    model = models[1].train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": SETTINGS.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=SETTINGS.lr, foreach=False, fused=False)
    step = 0
    for epoch in (1, 2):
        for index in length_batches(list(map(len, TRAIN.tokens)), 8, seed=SEED, epoch=epoch):
            for group in optimizer.param_groups:
                group["lr"] = SETTINGS.lr * lr_factor(step, 16, SETTINGS.warmup)
            batch = TRAIN.batch(index.tolist())
            F.cross_entropy(model(batch.input_ids, batch.lengths), batch.labels).backward()
            nn.utils.clip_grad_norm_(parameters, SETTINGS.clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    moved = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    for name, value in run.trained.tensors.items():
        torch.testing.assert_close(value, moved[name], rtol=0, atol=1e-2 if bf16 else 1e-4)


@pytest.mark.parametrize("microbatch_tokens", [None, 1000, 12])
@pytest.mark.parametrize("clip", [1.0, 0.05])
def test_training_equals_a_plain_loop_in_torch(tmp_path, clip, microbatch_tokens):
    settings = replace(SETTINGS, warmup=0.2, weight_decay=0.1, clip=clip)
    options = {"evaluations": {}, "microbatch_tokens": microbatch_tokens}
    run = Run(tmp_path / "s", settings, epochs=2, model=student(), **options)
    model = student().train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.02
    )
    rise, steps = 4, 16
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / rise if s < rise else (steps - s) / (steps - rise)
    )
    for epoch in (1, 2):
        for index in length_batches(list(map(len, TRAIN.tokens)), 8, seed=SEED, epoch=epoch):
            batch = TRAIN.batch(index.tolist())
            F.cross_entropy(model(batch.input_ids, batch.lengths), batch.labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    for name, value in model.named_parameters():
        torch.testing.assert_close(run.trained.tensors[name], value.detach(), rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_decoder_steps_are_captured_on_a_gpu(tiny_gpt2, tmp_path, graph_captures, monkeypatch):
    """They are the same, in a run that is gone on with, too. A student's are not captured."""

    def trained(name, model=None, settings=SETTINGS, **arguments):
        torch.manual_seed(0)
        model = model or build_lora_classifier(
            find_base_model(str(tiny_gpt2)).base(), 2, rank=2, alpha=4
        )
        return Run(tmp_path / name, settings, 3, model=model, evaluations={}, **arguments)

    plain, plain_student = trained("plain"), trained("plain student", student())

    if DEVICE == "cpu":

        class OnGPU(loop.Accelerator):
            device = torch.device("cuda")

            def prepare(self, *objects):
                return objects

        monkeypatch.setattr(loop, "Accelerator", OnGPU)
        move = Batch.to
        monkeypatch.setattr(Batch, "to", lambda batch, device, **kw: move(batch, "cpu", **kw))
    graphed = trained("graphed", microbatch_tokens=256)
    assert graph_captures.number == 2  # batches of 8 and of the 4 that are left
    with pytest.raises(KeyboardInterrupt):
        trained("halves", microbatch_tokens=256, **interrupted_after_epoch(2))
    resumed = trained("halves", settings=replace(SETTINGS, resume=True), microbatch_tokens=256)
    assert len(resumed.reported) == 1
    for run in (graphed, resumed):
        torch.testing.assert_close(run.trained.tensors, plain.trained.tensors, rtol=0, atol=1e-5)
        for found, expected in zip(run.trained.history, plain.trained.history, strict=True):
            assert found["train"] == pytest.approx(expected["train"], abs=1e-5)
    graph_captures.number = 0
    assert equal(trained("student", student()).trained.tensors, plain_student.trained.tensors)
    assert not graph_captures.number


def test_gradient_is_clipped(tmp_path):
    """AdamW's first moments after one step are a tenth of the gradient it was given."""
    one_step = replace(SETTINGS, batch_size=len(TRAIN.tokens), clip=0.5)
    norms = []
    for factor in (1e-3, 1e6):
        run = Run(tmp_path / str(factor), one_step, 1, loss_function=scaled_loss(factor))
        kept = load_file(run.checkpoint.folder / "state.safetensors")
        moments = [value for name, value in kept.items() if name.endswith(".exp_avg")]
        assert len(moments) == len(list(run.model.parameters()))
        norms.append(10 * math.sqrt(sum(m.square().sum().item() for m in moments)))
    assert norms[0] < 0.01
    assert norms[1] == pytest.approx(0.5, rel=1e-4)


def test_a_separable_problem_is_learned(tmp_path):
    run = Run(tmp_path / "s", replace(SETTINGS, lr=0.05), epochs=8, model=student(hidden=16))
    assert run.trained.chosen_metrics["train"]["accuracy"] == 1
    run.trained.restore(run.model)
    for split in (TRAIN, HOLDOUT):
        assert score(predict_logits(run.model, split.tokens).numpy(), split.labels)["mcc"] == 1


def test_the_seed_determines_the_weights(tmp_path):
    one, same = Run(tmp_path / "1"), Run(tmp_path / "2")
    other = Run(tmp_path / "3", seed=SEED + 1)
    assert equal(one.trained.tensors, same.trained.tensors)
    assert not equal(one.trained.tensors, other.trained.tensors)


def test_train_scores_are_those_during_training(tmp_path):
    """With a rate so small that nothing moves they are the scores before training."""
    run = Run(tmp_path / "s", replace(SETTINGS, lr=1e-12), 1, student(), evaluations={"dev": DEV})
    (only,) = run.trained.history
    for split, of in (("train", TRAIN), ("dev", DEV)):
        expected = score(predict_logits(student(), of.tokens).numpy(), of.labels)
        assert only[split] == pytest.approx(expected, abs=1e-5)
    assert run.reported == run.trained.history


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_lora_changes_only_trainable_parameters(tiny_decoder, tmp_path, bf16):
    torch.manual_seed(0)
    model = build_lora_classifier(tiny_decoder.base(), 2, rank=4, alpha=8.0)
    if bf16:
        cast_frozen_to_bf16(model.base)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run = Run(tmp_path / "s", epochs=1, model=model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(run.trained.tensors) == trainable
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (name not in trainable), name


def test_lora_learns(tiny_decoder, tmp_path):
    torch.manual_seed(0)
    model = build_lora_classifier(tiny_decoder.base(), 2, rank=4, alpha=8.0)
    run = Run(tmp_path / "s", epochs=12, model=model)
    losses = [r["train"]["loss"] for r in run.trained.history]
    assert losses[-1] < losses[0] / 2
    assert run.trained.chosen_metrics["holdout"]["accuracy"] > 0.9
