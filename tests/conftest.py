"""Small random decoders with tokenizers of their own, and random sentences for them."""

import os
import signal
import subprocess
import sys

# Read when huggingface_hub is imported: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = (
    "1"  # onnxruntime would report, where a test imports it itself
)
# As the commands set them before the libraries that read them are imported.
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from potstill.decoder.hub import BaseModel, find_base_model
from potstill.training import graphs
from potstill.training.graphs import capture_graph

TEXT = [
    "The books on the table are old, and the table itself is older still.",
    "She thinks that nobody has read the letters that he sent to himself.",
    "Which of the students did the teacher say would be leaving early?",
    "John's sister believes there to be three cats in every garden.",
]
EOS = "<|endoftext|>"
# Absolute, as tests change the working directory.
_cola = os.environ.get("POTSTILL_TEST_COLA")
COLA_FOLDER = Path(_cola).resolve() if _cola else None
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
from potstill.cli import main
main(args={args})
"""


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, and one thread, so that sums come out the same every time."""
    # A shell ignores it for what it runs in the background, and so would every process from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POTSTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def cola_folder() -> Path:
    """Folder of CoLA's own files, which may not be part of the project."""
    if COLA_FOLDER is None:
        pytest.skip("POTSTILL_TEST_COLA does not name the folder of CoLA's files")
    return COLA_FOLDER


@pytest.fixture
def run_without(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command from an empty folder, in a process that can't import some packages."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(blocked: tuple[str, ...], *args: str) -> subprocess.CompletedProcess[str]:
        script = BLOCKED.format(blocked=blocked, args=list(args))
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder)

    return run


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Saves a decoder whose every parameter is off its starting value, biases and norms too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_tokenizer() -> Any:
    """A byte-level BPE of about 400 tokens; the end-of-text token is number 0."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    """Folder of a GPT-2: 2 layers, 32 wide, 4 heads, 64 positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(small_tokenizer),
        n_layer=2,
        n_embd=32,
        n_head=4,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("decoders") / "tiny-gpt2"
    torch.manual_seed(0)
    return _save(GPT2LMHeadModel(config), small_tokenizer, folder)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    """Folder of a Llama: 2 layers, 32 wide, 4 heads over 2 key/value heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(small_tokenizer),
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("decoders") / "tiny-llama"
    torch.manual_seed(0)
    return _save(LlamaForCausalLM(config), small_tokenizer, folder)


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def tiny_decoder(request: pytest.FixtureRequest) -> BaseModel:
    """Each of the two small decoders in turn."""
    return find_base_model(str(request.getfixturevalue(request.param)))


@pytest.fixture(scope="session")
def random_tokens() -> Callable[..., list[list[int]]]:
    """Makes sentences of random tokens, of the lengths given; token 0, the padding, is in none."""

    def make(lengths: Sequence[int], vocab_size: int = 256, seed: int = 0) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randint(1, vocab_size, (length,), generator=generator).tolist()
            for length in lengths
        ]

    return make


class GraphCaptures:
    """Counts what is captured. Where there is no GPU, stands in for CUDA's graphs: like these,
    computes nothing before it is replayed, and keeps one tensor for the answers."""

    def __init__(self) -> None:
        self.number = 0
        self.failure: Exception | None = None

    def __call__(self, step: Callable[[], torch.Tensor], pool: Any) -> Any:
        self.number += 1

        def watched() -> torch.Tensor:
            if self.failure:
                raise self.failure
            return step()

        if torch.cuda.is_available():
            return capture_graph(watched, pool)
        if self.failure:
            raise self.failure
        answers = torch.empty(0)
        return answers, lambda: answers.set_(watched().clone())


@pytest.fixture
def graph_captures(monkeypatch: pytest.MonkeyPatch) -> GraphCaptures:
    captures = GraphCaptures()
    monkeypatch.setattr(graphs, "capture_graph", captures)
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return captures
