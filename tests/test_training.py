"""The training loop against a plain one in torch; resuming, choosing, what stays frozen."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from potstill import UserError, training
from potstill.batching import Batch, collate, length_batches, predict_logits
from potstill.classifier import tunable_classifier
from potstill.decoder import find_decoder
from potstill.lora import halve_frozen, lora_layers
from potstill.metrics import confusion_counts, mcc_standard_error, score
from potstill.optimisation import lr_factor
from potstill.settings import TrainSettings
from potstill.state import TrainingState, choose
from potstill.student import DistilRNN, StudentConfig
from potstill.training import (
    UNLABELLED,
    Examples,
    backward_apart,
    resolve_precision,
    train,
)

SETTINGS = TrainSettings(batch_size=8, lr=0.02)
SEED = 11
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def examples(sentences=60, seed=0) -> Examples:
    """Sentences that have token 1 somewhere, label 1, or token 2, label 0."""
    rng = np.random.default_rng(seed)
    tokens, labels = [], []
    for _ in range(sentences):
        words = rng.integers(3, 20, rng.integers(1, 9))
        label = int(rng.integers(2))
        words[rng.integers(len(words))] = 1 if label else 2
        tokens.append(words.tolist())
        labels.append(label)
    return Examples(tokens, labels)


TRAIN, HOLDOUT, DEV = examples(), examples(30, 1), examples(30, 2)


def student(dropout=0.0, hidden=8) -> DistilRNN:
    torch.manual_seed(3)
    return DistilRNN(StudentConfig(20, 2, "gru", 8, hidden, layers=1, dropout=dropout))


def cross_entropy(of=TRAIN, factor=1.0):
    labels = torch.tensor(of.labels, device=DEVICE)

    def loss(logits, index):
        return factor * nn.functional.cross_entropy(logits, labels.to(logits.device)[index])

    return loss


class Run:
    """One call of `train`, what it left and what it reported."""

    def __init__(self, folder, settings=SETTINGS, epochs=3, model=None, **changes):
        self.model = model or student(dropout=0.2)
        self.state = TrainingState(folder, changes.pop("identity", {"lr": settings.lr}))
        self.reported = []
        arguments = {
            "examples": TRAIN,
            "loss_function": cross_entropy(),
            "evaluations": {"holdout": HOLDOUT, "dev": DEV},
            "seed": SEED,
            "report": self.reported.append,
        }
        self.trained = train(
            self.model, settings=settings, epochs=epochs, state=self.state, **arguments | changes
        )


def equal(tensors, others) -> bool:
    return tensors.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in tensors.items()
    )


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (5, 0.2, [1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (8, 0.5, [1 / 4, 2 / 4, 3 / 4, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (3, 1.0, [1 / 3, 2 / 3, 1]),
        (1, 0.06, [1]),
    ],
)
def test_learning_rate_by_hand(steps, warmup, expected):
    found = [lr_factor(step, steps, warmup) for step in range(steps)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("threads", "part_tokens"), [(1, 256), (3, 256), (1, 6), (2, 4)])
def test_batches_in_parts_give_the_gradients_of_the_whole(
    tiny_decoder, monkeypatch, threads, part_tokens
):
    """Parts of unlike size, some empty, in several threads."""
    torch.manual_seed(0)
    model = tunable_classifier(tiny_decoder.base(), 2, 2, 4).train()
    with torch.no_grad():
        model.score.weight.normal_()
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.1)
    for index in ([5], [0, 1], list(range(20, 31))):
        batch = collate(TRAIN.tokens, index)
        logits = model(batch.input_ids, batch.lengths)
        cross_entropy()(logits, batch.index).backward()
        expected = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        model.zero_grad(set_to_none=True)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        passed = backward_apart(model, TRAIN.tokens, np.array(index), cross_entropy(), part_tokens)
        assert torch.cat([places for places, _ in passed]).tolist() == index
        torch.testing.assert_close(torch.cat([part for _, part in passed]), logits.detach())
        found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        model.zero_grad(set_to_none=True)


def test_unlabelled_sentences_are_learned_from_and_not_scored(tmp_path):
    """With a loss that takes them for label 1, all are called 1, and the scores are the others'."""
    labels = [label if i % 3 else UNLABELLED for i, label in enumerate(TRAIN.labels)]
    mixed = Examples(TRAIN.tokens, labels)
    seen = []

    def loss(logits, index):
        seen.extend(index.tolist())
        return nn.functional.cross_entropy(logits, torch.ones_like(logits[:, 0]).long())

    run = Run(tmp_path / "s", epochs=1, examples=mixed, loss_function=loss, model=student())
    assert sorted(seen) == list(range(len(labels)))
    known = [label for label in labels if label != UNLABELLED]
    record = run.trained.records[0]["train"]
    assert 0 < record["accuracy"] < 1
    assert round(record["accuracy"] * len(known), 6) % 1 == 0


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_tuning_is_a_plain_loop_in_torch(tiny_decoder, tmp_path, half):
    """A decoder with LoRA, by backward() and an optimizer that is not fused."""
    models = []
    for _ in range(2):
        torch.manual_seed(2)
        models.append(tunable_classifier(tiny_decoder.base(), 2, 2, 4))
        nn.init.normal_(models[-1].score.weight, std=0.02)
        if half:
            halve_frozen(models[-1].base)
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
        for index in length_batches(list(map(len, TRAIN.tokens)), 8, SEED, epoch):
            for group in optimizer.param_groups:
                group["lr"] = SETTINGS.lr * lr_factor(step, 16, SETTINGS.warmup)
            batch = collate(TRAIN.tokens, index.tolist())
            cross_entropy()(model(batch.input_ids, batch.lengths), batch.index).backward()
            nn.utils.clip_grad_norm_(parameters, SETTINGS.clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    moved = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    for name, value in run.trained.tensors.items():
        torch.testing.assert_close(value, moved[name], rtol=0, atol=1e-2 if half else 1e-4)


def test_dropout_in_threads_is_repeatable(tiny_decoder, monkeypatch):
    """However the threads are served, each part loses the same inputs again."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.manual_seed(0)
    model = tunable_classifier(tiny_decoder.base(), 2, 2, 4, dropout=0.5).train()
    with torch.no_grad():
        model.score.weight.normal_()
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.5)

    def logits(seed, part_tokens=4):
        torch.manual_seed(seed)
        index = np.arange(20)
        passed = backward_apart(model, TRAIN.tokens, index, cross_entropy(), part_tokens)
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        return torch.cat([of_part for _, of_part in passed]), grads

    first, grads = logits(0)
    for _ in range(5):
        again, same = logits(0)
        assert torch.equal(again, first)
        assert all(torch.equal(a, b) for a, b in zip(same, grads, strict=True))
    other, _ = logits(1)
    assert (other - first).abs().min() > 1e-4
    batch = collate([TRAIN.tokens[0]] * 2, [0, 1])
    one, two = model(batch.input_ids, batch.lengths)
    assert (one - two).abs().min() > 1e-4  # each sentence of a batch loses its own


@pytest.mark.parametrize("part_tokens", [None, 1000, 12])
@pytest.mark.parametrize("clip", [1.0, 0.05])
def test_training_is_a_plain_loop_in_torch(tmp_path, clip, part_tokens):
    settings = replace(SETTINGS, warmup=0.2, weight_decay=0.1, clip=clip)
    apart = {"evaluations": {}, "part_tokens": part_tokens}
    run = Run(tmp_path / "s", settings, epochs=2, model=student(), **apart)
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
        for index in length_batches(list(map(len, TRAIN.tokens)), 8, SEED, epoch):
            batch = collate(TRAIN.tokens, index.tolist())
            cross_entropy()(model(batch.input_ids, batch.lengths), batch.index).backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    for name, value in model.named_parameters():
        torch.testing.assert_close(run.trained.tensors[name], value.detach(), rtol=0, atol=1e-5)


def test_on_a_gpu_a_decoder_s_steps_are_recorded(tiny_gpt2, tmp_path, recordings, monkeypatch):
    """They are the same, in a run that is gone on with, too. A student's are not recorded."""

    def trained(name, model=None, settings=SETTINGS, **arguments):
        torch.manual_seed(0)
        model = model or tunable_classifier(find_decoder(str(tiny_gpt2)).base(), 2, 2, 4)
        return Run(tmp_path / name, settings, 3, model=model, evaluations={}, **arguments)

    plain, plain_student = trained("plain"), trained("plain student", student())

    if DEVICE == "cpu":

        class OnGPU(training.Accelerator):
            device = torch.device("cuda")

            def prepare(self, *objects):
                return objects

        monkeypatch.setattr(training, "Accelerator", OnGPU)
        monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
    graphed = trained("graphed", part_tokens=256)
    assert recordings.number == 2  # batches of 8 and of the 4 that are left
    with pytest.raises(KeyboardInterrupt):
        trained("halves", part_tokens=256, **interrupted_after_epoch(2))
    resumed = trained("halves", settings=replace(SETTINGS, resume=True), part_tokens=256)
    assert len(resumed.reported) == 1
    for run in (graphed, resumed):
        torch.testing.assert_close(run.trained.tensors, plain.trained.tensors, rtol=0, atol=1e-5)
        for found, expected in zip(run.trained.records, plain.trained.records, strict=True):
            assert found["train"] == pytest.approx(expected["train"], abs=1e-5)
    recordings.number = 0
    assert equal(trained("student", student()).trained.tensors, plain_student.trained.tensors)
    assert not recordings.number


def test_gradient_is_clipped(tmp_path):
    """AdamW's first moments after one step are a tenth of the gradient it was given."""
    one_step = replace(SETTINGS, batch_size=len(TRAIN.tokens), clip=0.5)
    norms = []
    for factor in (1e-3, 1e6):
        run = Run(tmp_path / str(factor), one_step, 1, loss_function=cross_entropy(factor=factor))
        kept = load_file(run.state.folder / "state.safetensors")
        moments = [value for name, value in kept.items() if name.endswith(".exp_avg")]
        assert len(moments) == len(list(run.model.parameters()))
        norms.append(10 * math.sqrt(sum(m.square().sum().item() for m in moments)))
    assert norms[0] < 0.01
    assert norms[1] == pytest.approx(0.5, rel=1e-4)


def test_separable_problem_is_learnt(tmp_path):
    run = Run(tmp_path / "s", replace(SETTINGS, lr=0.05), epochs=8, model=student(hidden=16))
    assert run.trained.best["train"]["accuracy"] == 1
    run.trained.restore(run.model)
    for split in (TRAIN, HOLDOUT):
        assert score(predict_logits(run.model, split.tokens).numpy(), split.labels)["mcc"] == 1


def test_same_seed_same_tensors(tmp_path):
    one, same = Run(tmp_path / "1"), Run(tmp_path / "2")
    other = Run(tmp_path / "3", seed=SEED + 1)
    assert equal(one.trained.tensors, same.trained.tensors)
    assert not equal(one.trained.tensors, other.trained.tensors)


def interrupted_after_epoch(number):
    def report(record):
        if record["epoch"] == number:
            raise KeyboardInterrupt

    return {"report": report}


def interrupted_in_batch(sentences):
    left = [sentences]

    def loss(logits, index):
        left[0] -= len(index)
        if left[0] < 0:
            raise KeyboardInterrupt
        return cross_entropy()(logits, index)

    return {"loss_function": loss}


@pytest.mark.parametrize(
    ("interrupted", "number"),
    [(interrupted_after_epoch, 1), (interrupted_after_epoch, 3), (interrupted_in_batch, 150)],
    ids=["after the first epoch", "after the last but one", "in the third"],
)
@pytest.mark.parametrize("part_tokens", [None, 12])
def test_resumed_is_as_if_never_interrupted(tmp_path, interrupted, number, part_tokens):
    apart = {"epochs": 4, "part_tokens": part_tokens}
    whole = Run(tmp_path / "whole", **apart)
    folder = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        Run(folder, **apart, **interrupted(number))
    before = len(json.loads((folder / "state.json").read_text())["records"])
    resumed = Run(folder, replace(SETTINGS, resume=True), model=student(dropout=0.2), **apart)
    assert [record["epoch"] for record in resumed.reported] == list(range(before + 1, 5))
    assert 0 < before < 4
    assert equal(resumed.trained.tensors, whole.trained.tensors)
    last = dict(resumed.model.named_parameters())
    assert equal(last, dict(whole.model.named_parameters()))
    assert resumed.trained.chosen == whole.trained.chosen
    timeless = [
        [{k: v for k, v in r.items() if not k.startswith("se")} for r in run.trained.records]
        for run in (resumed, whole)
    ]
    assert timeless[0] == timeless[1]


def test_resume_after_the_last_epoch_trains_no_more(tmp_path):
    whole = Run(tmp_path / "s")
    again = Run(tmp_path / "s", replace(SETTINGS, resume=True))
    assert again.reported == []
    assert equal(again.trained.tensors, whole.trained.tensors)


def test_resume_with_other_settings_is_refused(tmp_path):
    identity = {"lr": 0.02, "betas": (0.9, 0.999)}
    Run(tmp_path / "s", epochs=1, identity=identity)
    resume = replace(SETTINGS, resume=True)
    Run(tmp_path / "s", resume, epochs=1, identity=identity)
    with pytest.raises(UserError, match=r"--resume: .*lr 0\.02, not 0\.03"):
        Run(tmp_path / "s", resume, epochs=1, identity=identity | {"lr": 0.03})
    with pytest.raises(UserError, match=r"--resume: .*had lr 0\.02, not None"):
        Run(tmp_path / "s", resume, epochs=1, identity={"betas": (0.9, 0.999)})


def test_resume_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no interrupted run"):
        Run(tmp_path / "s", replace(SETTINGS, resume=True))


def test_state_can_be_removed(tmp_path):
    run = Run(tmp_path / "s", epochs=1)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    run.state.remove()
    assert not list(tmp_path.iterdir())


def record(epoch, mcc, se=0.04, dev=0.0):
    return {"epoch": epoch, "holdout": {"mcc": mcc, "mcc_se": se}, "dev": {"mcc": dev}}


@pytest.mark.parametrize(
    ("records", "chosen"),
    [
        ([record(1, 0.1), record(2, 0.3), record(3, 0.2)], 2),
        ([record(1, 0.3, dev=0.1), record(2, 0.2, dev=0.9)], 1),
        ([record(1, 0.2), record(2, 0.3), record(3, 0.27), record(4, 0.25)], 3),
        ([record(1, 0.28), record(2, 0.3), record(3, 0.2)], 2),
        ([record(1, 0.3, 0.01), record(2, 0.28, 0.05)], 1),
        ([record(1, 0.3, 0), record(2, 0.3, 0)], 2),
        ([record(1, -0.5), record(2, -0.1)], 2),
    ],
    ids=[
        "the best",
        "not dev's",
        "the latest within its standard error",
        "not an earlier one",
        "the standard error is the best's",
        "the latest of equals",
        "below 0",
    ],
)
def test_chosen_epoch(records, chosen):
    assert choose(records) == chosen


def test_a_chosen_epoch_stays_chosen_or_the_newest_is():
    """So that the tensors of one epoch are all that is to be kept."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        records, before = [], 0
        for epoch in range(1, 9):
            records.append(record(epoch, rng.uniform(-0.1, 0.5), rng.uniform(0, 0.2)))
            chosen = choose(records)
            assert chosen in (before, epoch)
            before = chosen


def test_without_a_held_out_slice_the_last_epoch_is_chosen():
    records = [record(1, 0, dev=0.9), record(2, 0, dev=0.1)]
    for one in records:
        del one["holdout"]
    assert choose(records) == 2


def test_restored_are_the_weights_of_the_epoch_best_on_the_held_out_slice(tmp_path):
    # Labels turned round on the held-out slice: the less is learnt, the better it scores there.
    contrary = Examples(HOLDOUT.tokens, [1 - label for label in HOLDOUT.labels])
    slices = {"holdout": contrary, "dev": HOLDOUT}
    run = Run(tmp_path / "s", epochs=5, model=student(), evaluations=slices)
    assert run.trained.chosen < 5
    by_dev = max(run.trained.records, key=lambda r: r["dev"]["mcc"])["epoch"]
    assert run.trained.chosen != by_dev
    held = [r["holdout"]["mcc"] for r in run.trained.records]
    assert run.trained.best["holdout"]["mcc"] == max(held)
    run.trained.restore(run.model)
    logits = predict_logits(run.model, contrary.tokens).numpy()
    counts = confusion_counts(contrary.labels, logits.argmax(1).tolist(), 2)
    expected = score(logits, contrary.labels) | {"mcc_se": mcc_standard_error(counts)}
    assert run.trained.best["holdout"] == expected


def test_train_scores_are_of_every_sentence_as_it_was_learnt(tmp_path):
    """With a rate so small that nothing moves they are the scores before training."""
    run = Run(tmp_path / "s", replace(SETTINGS, lr=1e-12), 1, student(), evaluations={"dev": DEV})
    (only,) = run.trained.records
    for split, of in (("train", TRAIN), ("dev", DEV)):
        expected = score(predict_logits(student(), of.tokens).numpy(), of.labels)
        assert only[split] == pytest.approx(expected, abs=1e-5)
    assert run.reported == run.trained.records


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_lora_moves_what_it_trains_and_nothing_else(tiny_decoder, tmp_path, half):
    torch.manual_seed(0)
    model = tunable_classifier(tiny_decoder.base(), 2, 4, 8.0)
    if half:
        halve_frozen(model.base)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run = Run(tmp_path / "s", epochs=1, model=model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(run.trained.tensors) == trainable
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (name not in trainable), name


def test_lora_learns(tiny_decoder, tmp_path):
    torch.manual_seed(0)
    model = tunable_classifier(tiny_decoder.base(), 2, 4, 8.0)
    run = Run(tmp_path / "s", epochs=12, model=model)
    losses = [r["train"]["loss"] for r in run.trained.records]
    assert losses[-1] < losses[0] / 2
    assert run.trained.best["holdout"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_named_precision_is_taken(precision, dtype):
    assert resolve_precision(precision) == dtype
