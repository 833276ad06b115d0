"""Runs that are resumed."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from potstill.errors import UserError
from potstill.files import MANIFEST
from potstill.training.finite import DivergedError
from potstill.training.losses import classification_loss
from tests.training.toy import SETTINGS, Run, equal, student


def interrupted_after_epoch(number):
    def report(metrics):
        if metrics["epoch"] == number:
            raise KeyboardInterrupt

    return {"report": report}


def interrupted_in_batch(sentences):
    left = [sentences]

    def loss(logits, batch):
        left[0] -= len(batch)
        if left[0] < 0:
            raise KeyboardInterrupt
        return classification_loss(logits, batch)

    return {"loss_function": loss}


@pytest.mark.parametrize(
    ("interrupted", "number"),
    [(interrupted_after_epoch, 1), (interrupted_after_epoch, 3), (interrupted_in_batch, 150)],
    ids=["after the first epoch", "after the last but one", "in the third"],
)
@pytest.mark.parametrize("microbatch_tokens", [None, 12])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path, interrupted, number, microbatch_tokens
):
    options = {"epochs": 4, "microbatch_tokens": microbatch_tokens}
    whole = Run(tmp_path / "whole", **options)
    folder = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        Run(folder, **options, **interrupted(number))
    before = len(json.loads((folder / "state.json").read_text())["records"])
    resumed = Run(folder, model=student(dropout=0.2), **options)
    assert [metrics["epoch"] for metrics in resumed.reported] == list(range(before + 1, 5))
    assert 0 < before < 4
    assert equal(resumed.trained.tensors, whole.trained.tensors)
    last = dict(resumed.model.named_parameters())
    assert equal(last, dict(whole.model.named_parameters()))
    assert resumed.trained.chosen_epoch == whole.trained.chosen_epoch
    assert without_clocks(resumed) == without_clocks(whole)


def without_clocks(run):
    return [{k: v for k, v in r.items() if not k.startswith("se")} for r in run.trained.history]


@pytest.mark.parametrize("microbatch_tokens", [None, 12])
@pytest.mark.parametrize("sentences", [1, 7, 8, 59, 61, 119, 239])
def test_a_run_resumes_within_an_epoch(tmp_path, sentences, microbatch_tokens):
    """Saved after every step; the interruption comes within one."""
    options = {"epochs": 4, "microbatch_tokens": microbatch_tokens}
    whole = Run(tmp_path / "whole", **options)
    folder = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        Run(folder, minutes=0, **options, **interrupted_in_batch(sentences))
    state = json.loads((folder / "state.json").read_text()) if folder.exists() else {}
    assert len(state.get("records", [])) == sentences // 60
    assert state.get("steps", 0) == sentences % 60 // 8
    resumed = Run(folder, model=student(dropout=0.2), **options)
    assert equal(resumed.trained.tensors, whole.trained.tensors)
    assert equal(dict(resumed.model.named_parameters()), dict(whole.model.named_parameters()))
    assert without_clocks(resumed) == without_clocks(whole)


class _SignalInStep:
    """A loss that sends the process a signal in the step of the given number."""

    def __init__(self, step, number=signal.SIGINT, times=1):
        self.left, self.number, self.times = step, number, times

    def __call__(self, logits, batch):
        self.left -= 1
        if self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
        return classification_loss(logits, batch)


def test_an_interrupt_ends_the_step_saves_and_then_ends_the_run(tmp_path):
    whole = Run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "s", loss_function=_SignalInStep(11), noting=True)
    state = json.loads((tmp_path / "s/state.json").read_text())
    assert (len(state["records"]), state["steps"]) == (1, 3)  # 8 steps an epoch
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Run(tmp_path / "s")
    assert equal(resumed.trained.tensors, whole.trained.tensors)


def test_a_second_interrupt_ends_the_run_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "s", loss_function=_SignalInStep(11, times=2), noting=True)
    state = json.loads((tmp_path / "s/state.json").read_text())
    assert len(state["records"]) == 1
    assert "steps" not in state


def test_an_interrupt_after_the_last_step_is_not_lost(tmp_path):
    def report(metrics):
        if metrics["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "s", report=report, noting=True)
    assert Run(tmp_path / "s").reported == []  # all epochs were saved


def test_a_termination_that_nobody_handles_is_left_alone(tmp_path):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    seen = []

    def loss(logits, batch):
        seen.append(signal.getsignal(signal.SIGTERM))
        return classification_loss(logits, batch)

    Run(tmp_path / "s", epochs=1, loss_function=loss, noting=True)
    assert set(seen) == {signal.SIG_DFL}


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def _edit(file):
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)


DAMAGES = {
    "cut": ("state.safetensors", _truncate, "state.safetensors is damaged: it has"),
    "empty": ("state.safetensors", lambda f: f.write_bytes(b""), "it has 0 bytes, not"),
    "missing": ("state.safetensors", lambda f: f.unlink(), "state.safetensors is missing"),
    "edited": ("state.safetensors", _edit, "it is not what was written"),
    "json edited": (
        "state.json",
        lambda f: f.write_text(f.read_text().replace("0.02", "0.03", 1)),
        "state.json is damaged: it is not what was written",
    ),
    "json missing": ("state.json", lambda f: f.unlink(), "state.json is missing"),
    "json cut": ("state.json", _truncate, "state.json is damaged: it has"),
    "manifest cut": (MANIFEST, _truncate, "manifest.json is damaged"),
    "manifest a list": (MANIFEST, lambda f: f.write_text("[]"), "manifest.json is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named(tmp_path, damage):
    name, harm, words = DAMAGES[damage]
    Run(tmp_path / "s", epochs=1)
    harm(tmp_path / "s" / name)
    with pytest.raises(UserError) as error:
        Run(tmp_path / "s", epochs=1)
    assert words in str(error.value)
    assert str(error.value).endswith("start anew with `fresh`.")


@pytest.mark.parametrize("damage", [d for d in DAMAGES if DAMAGES[d][0] == "state.safetensors"])
def test_a_damaged_state_without_a_manifest_is_named(tmp_path, damage):
    """As an earlier version wrote it; a number that was edited can't be told then."""
    name, harm, _ = DAMAGES[damage]
    Run(tmp_path / "s", epochs=1)
    (tmp_path / "s" / MANIFEST).unlink()
    harm(tmp_path / "s" / name)
    if damage == "edited":
        Run(tmp_path / "s", epochs=1)
        return
    with pytest.raises(UserError, match=r"is damaged .*start anew with `fresh`"):
        Run(tmp_path / "s", epochs=1)


@pytest.mark.parametrize("body", ["[]", "{}", "3", '{"settings": 1, "records": 2}'])
def test_a_state_of_another_shape_is_named(tmp_path, body):
    Run(tmp_path / "s", epochs=1)
    (tmp_path / "s" / MANIFEST).unlink()
    (tmp_path / "s/state.json").write_text(body)
    with pytest.raises(UserError, match=r"is damaged .*start anew with `fresh`"):
        Run(tmp_path / "s", epochs=1)


def test_a_state_of_an_earlier_version_is_continued(tmp_path):
    """It knew epochs only, and had no manifest."""
    whole = Run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "s", **interrupted_after_epoch(2))
    (tmp_path / "s" / MANIFEST).unlink()
    assert json.loads((tmp_path / "s/state.json").read_text()).keys() == {"settings", "records"}
    assert equal(Run(tmp_path / "s").trained.tensors, whole.trained.tensors)


@pytest.mark.parametrize("microbatch_tokens", [None, 12])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, value, microbatch_tokens):
    left = [11]

    def loss(logits, batch):
        left[0] -= 1
        return classification_loss(logits, batch) * (value if left[0] == 0 else 1)

    with pytest.raises(DivergedError) as error:
        Run(
            tmp_path / "s",
            minutes=0,
            loss_function=loss,
            microbatch_tokens=microbatch_tokens,
        )
    assert (error.value.epoch, bool(error.value.indices)) == (1 if microbatch_tokens else 2, True)
    assert error.value.lr and 0 < error.value.lr <= SETTINGS.lr
    assert f"epoch {error.value.epoch}, step {error.value.step}" in str(error.value)
    tensors = load_file(tmp_path / "s/state.safetensors")
    assert all(t.isfinite().all() for t in tensors.values())
    state = json.loads((tmp_path / "s/state.json").read_text())
    assert state.get("steps", 0) == error.value.step - 1


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = Run(tmp_path / "s", epochs=1)
    before = (tmp_path / "s/state.safetensors").read_bytes()
    parameters = dict(run.model.named_parameters())
    with torch.no_grad():
        parameters["score.bias"][0] = float("nan")
    with pytest.raises(DivergedError):
        run.checkpoint.save(run.trained, parameters, torch.optim.AdamW(run.model.parameters()))
    assert (tmp_path / "s/state.safetensors").read_bytes() == before


def test_resume_after_the_last_epoch_does_not_train(tmp_path):
    whole = Run(tmp_path / "s")
    again = Run(tmp_path / "s")
    assert again.reported == []
    assert equal(again.trained.tensors, whole.trained.tensors)


def test_other_settings_are_refused(tmp_path):
    identity = {"lr": 0.02, "betas": (0.9, 0.999)}
    Run(tmp_path / "s", epochs=1, identity=identity)
    Run(tmp_path / "s", epochs=1, identity=identity)
    with pytest.raises(UserError, match=r"had lr 0\.02, not 0\.03; repeat .*`fresh`"):
        Run(tmp_path / "s", epochs=1, identity=identity | {"lr": 0.03})
    with pytest.raises(UserError, match=r"had lr 0\.02, not None"):
        Run(tmp_path / "s", epochs=1, identity={"betas": (0.9, 0.999)})


def test_checkpoint_can_be_removed(tmp_path):
    run = Run(tmp_path / "s", epochs=1)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    run.checkpoint.remove()
    assert not list(tmp_path.iterdir())
