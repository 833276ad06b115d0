"""DistilRNN-base, which comes with the package, and what else a student can start from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from potstill.errors import UsageError, UserError
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER, STUDENT_WEIGHTS
from potstill.inference.engines import OnnxruntimeEngine
from potstill.pretrained import BASE, COLA
from potstill.settings import StudentSettings
from potstill.student.base import load_base, load_init, save_base
from potstill.student.io import save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx import write_onnx
from potstill.student.onnx_file import matrix, read_onnx
from potstill.student.tokenizer import encode, train_tokenizer, word_end_positions

SENTENCES = ["The films are old.", "  Naïve\u00a0«birds»  sing,\tdon't they?  ", "It"]
SMALL = StudentSettings(hidden_size=6, embedding_size=5, init="folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base with hashes in its config.json."""
    shutil.copytree(BASE, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A saved student of 6 hidden units."""
    tokenizer = train_tokenizer(SENTENCES, 280)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "classes": 3}
    model = DistilRNN(StudentConfig(hidden_size=6, embedding_size=5, word_head=True, **sizes))
    folder = tmp_path / "student"
    folder.mkdir()
    save_student(model, tokenizer, folder)
    config = {"student": vars(model.config), "labels": ["a", "b", "c"], "max_length": 9}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class TestTheBaseInTheBox:
    def test_its_files_are_small(self) -> None:
        sizes = {file.name: file.stat().st_size for file in BASE.iterdir()}
        assert sizes.keys() == {"README.md", "config.json", STUDENT_TOKENIZER, STUDENT_WEIGHTS}
        assert sizes[STUDENT_WEIGHTS] < 6_000_000
        assert sizes[STUDENT_TOKENIZER] < 1_000_000

    def test_its_network_is_the_students_default_one(self) -> None:
        base = load_init(StudentSettings(init="base"))
        assert base is not None
        assert base.tokenizer.get_vocab_size() == base.config["vocab_size"] == 8192
        assert not any(name.startswith("score") for name in base.weights)
        assert all(x.dtype == torch.float32 and x.isfinite().all() for x in base.weights.values())
        config = json.loads((BASE / "config.json").read_text())
        assert sum(x.numel() for x in base.weights.values()) == config["parameters"] < 3_000_000

    def test_its_card_has_the_figures_of_its_config(self) -> None:
        config = json.loads((BASE / "config.json").read_text())
        card = " ".join((BASE / "README.md").read_text().split())
        for value in (config["text"]["pieces"], config["training"]["batch_size"]):
            assert f"{value:,}" in card
        for name in ("next_token", "previous_token", "state", "mean_state", "replaced"):
            assert f"{config['losses'][name]:.3f}" in card

    def test_no_text_loses_a_byte(self) -> None:
        """Text of every plane of Unicode, each with characters of its first and last block."""
        tokenizer = Tokenizer.from_file(str(BASE / STUDENT_TOKENIZER))
        generator = torch.Generator().manual_seed(0)
        texts = ["".join(map(chr, range(0x80))), "<|endoftext|> <|im_start|><empty_output>"]
        for plane in range(17):
            inner = torch.randint(0, 0x10000, (500,), generator=generator).tolist()
            points = [plane * 0x10000 + x for x in (0, 1, *inner, 0xFFFD, 0xFFFE, 0xFFFF)]
            # Surrogates are no characters.
            texts.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
        for text, ids in zip(texts, encode(tokenizer, texts, 100_000), strict=True):
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            assert 0 not in ids  # the padding

    def test_its_tokens_are_those_of_the_whole_vocabulary_taken_apart(self) -> None:
        """The merges come in the order of their tokens, each after those of its parts."""
        model = json.loads((BASE / STUDENT_TOKENIZER).read_text())["model"]
        made = [model["vocab"][left + right] for left, right in model["merges"]]
        assert made == sorted(set(made))
        for left, right in model["merges"]:
            assert max(model["vocab"][left], model["vocab"][right]) < model["vocab"][left + right]

    def test_words_end_where_they_do(self) -> None:
        tokenizer = Tokenizer.from_file(str(BASE / STUDENT_TOKENIZER))
        tokens = encode(tokenizer, SENTENCES, 128)
        positions = word_end_positions(tokenizer, SENTENCES, 128)
        for sentence, ids, ends in zip(SENTENCES, tokens, positions, strict=True):
            assert len(ends) == len(sentence.split())
            for number, end in enumerate(ends, 1):
                assert tokenizer.decode(ids[: end + 1]).split() == sentence.split()[:number]


class TestLoadBase:
    def test_a_copy_is_the_same(self, folder: Path) -> None:
        one, other = load_base(BASE), load_base(folder)
        assert one.sha256 == other.sha256 and one.config == other.config

    def test_what_save_base_writes_is_read_back(self, student: Path, tmp_path: Path) -> None:
        first = load_base(student)
        model = DistilRNN(StudentConfig(**first.config))
        model.load_state_dict(first.weights, strict=False)
        (tmp_path / "saved").mkdir()
        save_base(model, first.tokenizer, tmp_path / "saved", {"SR": 7})
        saved = load_base(tmp_path / "saved")
        assert saved.config == first.config
        assert saved.tokenizer.to_str() == first.tokenizer.to_str()
        for name, tensor in first.weights.items():
            assert torch.equal(saved.weights[name], tensor.half().float())
        assert json.loads((tmp_path / "saved/config.json").read_text())["SR"] == 7

    def test_a_saved_student_is_a_base_without_its_classes(self, student: Path) -> None:
        base = load_init(replace(SMALL, init=str(student)))
        assert base is not None
        saved = load_file(student / STUDENT_WEIGHTS)
        assert base.weights.keys() == {name for name in saved if "score" not in name}
        for name, tensor in base.weights.items():
            assert torch.equal(tensor, saved[name])

    @pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
    @pytest.mark.parametrize("int8", [False, True])
    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_an_exported_student_is_a_base_too(
        self, cell: Any, int8: bool, bidirectional: bool, student: Path, tmp_path: Path
    ) -> None:
        """In 8 bits a weight is off by half a step at most, of 127 to the largest of its row."""
        config = json.loads((student / "config.json").read_text())
        config["student"] |= {"cell": cell, "bidirectional": bidirectional}
        model = DistilRNN(StudentConfig(**config["student"]))
        exported = tmp_path / "exported"
        exported.mkdir()
        write_onnx(model, exported / STUDENT_ONNX, int8=int8)
        shutil.copy(student / STUDENT_TOKENIZER, exported)
        (exported / "config.json").write_text(json.dumps(config))
        base = load_init(replace(SMALL, cell=cell, bidirectional=bidirectional, init=str(exported)))
        assert base is not None
        saved = {k: v for k, v in model.state_dict().items() if "score" not in k}
        assert base.weights.keys() == saved.keys()
        for name, weights in saved.items():
            step = weights.abs().amax(-1, keepdim=True) / 127
            allowed = step / 2 * 1.001 if int8 and weights.ndim > 1 else torch.zeros(1)
            assert ((base.weights[name] - weights).abs() <= allowed).all(), name

    def test_the_student_of_cola_in_the_box_is_one(self) -> None:
        """The network that is rebuilt from it has the states that onnxruntime classifies by."""
        base = load_init(StudentSettings(init="cola"))
        assert base is not None and base.folder == COLA
        tensors = read_onnx((COLA / STUDENT_ONNX).read_bytes()).tensors
        model = DistilRNN(StudentConfig(**base.config)).eval()
        rest = {"score.weight": matrix(tensors, "score"), "score.bias": tensors["bias"]}
        model.score = torch.nn.Linear(*rest["score.weight"].shape[::-1])
        model.load_state_dict(base.weights | {k: torch.tensor(v) for k, v in rest.items()})
        tokens = encode(base.tokenizer, SENTENCES, 128)
        reference = OnnxruntimeEngine(COLA / STUDENT_ONNX).run(tokens)
        for ids, logits in zip(tokens, reference, strict=True):
            with torch.no_grad():
                own = model(torch.tensor([ids]), torch.tensor([len(ids)]))
            np.testing.assert_allclose(own[0], logits, atol=1e-4)

    def test_other_weights_have_another_hash(self, student: Path) -> None:
        before = load_base(student).sha256
        weights = load_file(student / STUDENT_WEIGHTS)
        weights["embedding.weight"][0, 0] += 1
        save_file(weights, student / STUDENT_WEIGHTS)
        assert load_base(student).sha256 != before

    def test_none_is_no_base(self) -> None:
        assert load_init(StudentSettings(init="none")) is None

    @pytest.mark.parametrize(
        ("field", "value", "own"),
        [
            ("cell", "lstm", "gru"),
            ("hidden_size", 7, "6"),
            ("embedding_size", 7, "5"),
            ("layers", 1, "2"),
            ("bidirectional", False, "True"),
        ],
    )
    def test_another_shape_is_refused(
        self, field: str, value: Any, own: str, student: Path
    ) -> None:
        settings: Any = replace(SMALL, init=str(student), **{field: value})
        with pytest.raises(UsageError, match=f"`{field}` is {value}, but .* has {own}; make"):
            load_init(settings)


def damage(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def rewrite(**changes: Any) -> Callable[[Path], object]:
    """Change the network that config.json describes."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["student"] |= changes
        (folder / "config.json").write_text(json.dumps(config))

    return change


class TestRefused:
    """One sentence that names the folder and the file."""

    @pytest.mark.parametrize(
        ("harm", "words"),
        [
            (shutil.rmtree, "there is no such folder; it takes none, base, cola, or the folder"),
            (lambda f: (f / STUDENT_WEIGHTS).unlink(), "holds no model.safetensors; restore"),
            (lambda f: (f / STUDENT_TOKENIZER).unlink(), "holds no tokenizer.json; restore"),
            (lambda f: (f / "config.json").unlink(), "holds neither a base nor a student"),
            (lambda f: (f / "config.json").write_text("[]"), "holds neither a base nor a"),
            (damage(STUDENT_WEIGHTS), "can't be read: .*; restore it"),
            (damage(STUDENT_TOKENIZER), "can't be read: .*; restore it"),
            (rewrite(hidden_size=7), "model.safetensors does not hold the network that config"),
            (rewrite(layers=1), "model.safetensors does not hold the network that config"),
            (rewrite(cell="cnn"), "can't be read: .*cnn.*; restore it"),
            (rewrite(width=1), "can't be read: .*width.*; restore it"),
            (rewrite(layers=10**9), "has 1000000000 layers, model.safetensors fewer; restore it"),
            (
                lambda f: train_tokenizer(["abcde abcde"], 280).save(str(f / STUDENT_TOKENIZER)),
                "tokenizer.json is another network's; it has 26. tokens, the network 2",
            ),
        ],
    )
    def test_a_folder_that_is_no_base(
        self, harm: Callable[[Path], object], words: str, student: Path
    ) -> None:
        harm(student)
        with pytest.raises(UserError, match=f"^`init` {student}:? .*{words}") as refused:
            load_init(replace(SMALL, init=str(student)))
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("name", [STUDENT_WEIGHTS, STUDENT_TOKENIZER])
    def test_a_file_that_has_changed(self, name: str, folder: Path) -> None:
        """Of as many tokens as before, so that only the hash tells."""
        body = (folder / name).read_bytes()
        changed = body[:-1] + bytes([body[-1] ^ 1])
        if name == STUDENT_TOKENIZER:
            changed = body.replace(b'"add_prefix_space": false', b'"add_prefix_space": true')
        assert changed != body
        (folder / name).write_bytes(changed)
        with pytest.raises(UserError, match=f"{name} is not the file that config.json has the"):
            load_base(folder)
