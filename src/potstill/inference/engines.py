"""What runs an exported student: this project's 8-bit kernels, or onnxruntime."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from potstill.ops.gru_int8 import CompiledGRU, Int8GRU, Int8Layer
from potstill.ops.int8_library import cpus, load_library
from potstill.student.onnx_file import OnnxFile, matrix, read_onnx

BATCH_SIZE = 64


class Engine(Protocol):
    """A student's graph, loaded.

    Attributes:
        name: For tables and tests.
        n_labels: Number of classes.
        judges_words: It has the layer that judges words.
        one_thread: A call computes in the caller's thread, and several threads can call at once.
    """

    name: str
    n_labels: int
    judges_words: bool
    one_thread: bool

    def check_token(self, token: int) -> None:
        """Raise an error if the embedding has no such token."""
        ...

    def run(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the (N, classes) logits of N sentences of token ids, fp32."""
        ...

    def run_words(self, tokens: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the (N, classes) logits of N sentences, and for each the (L, classes) logits after
        each token; only where `judges_words`."""
        ...


def load_engine(file: Path) -> Engine:
    """Return what runs an ONNX file fastest here.

    A GRU with 8-bit matrices, as `export --int8` writes it, is run by the compiled kernels where
    there are some, and onnxruntime is not loaded; all else is run by onnxruntime.
    """
    return compiled_engine(file) or OnnxruntimeEngine(file)


class Int8Engine:
    """The compiled GRU, and the linear layers on its states."""

    name = "int8 kernels"
    one_thread = True

    def __init__(self, gru: CompiledGRU, tensors: dict[str, np.ndarray]):
        self._gru = gru
        self._score = matrix(tensors, "score"), np.ascontiguousarray(tensors["bias"])
        self._word_score = None
        if "word_score_int8" in tensors:
            bias = np.ascontiguousarray(tensors["word_bias"])
            self._word_score = matrix(tensors, "word_score"), bias
        self.n_labels = len(tensors["bias"])
        self.judges_words = self._word_score is not None
        self._n_tokens = len(tensors["embedding_int8"])

    def check_token(self, token: int) -> None:
        if token >= self._n_tokens:
            raise ValueError(f"the tokenizer has a token {token}, the embedding {self._n_tokens}")

    def run(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        return self._gru.linear(self._gru.features(tokens)[0], *self._score)

    def run_words(self, tokens: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[np.ndarray]]:
        assert self._word_score is not None
        linear = self._gru.linear
        features, states = self._gru.features(tokens, states=True)
        return linear(features, *self._score), [linear(s, *self._word_score) for s in states]


def compiled_engine(file: Path) -> Int8Engine | None:
    """Return the compiled kernels with the weights of an ONNX file; None where there are no
    kernels, or the file is anything but a GRU with 8-bit matrices as this project writes it."""
    library = load_library()
    if library is None:
        return None
    try:
        graph = read_onnx(file.read_bytes())
        network = _network(graph)
    except (KeyError, ValueError, OSError):
        return None  # onnxruntime says what is wrong
    if network is None:
        return None
    return Int8Engine(CompiledGRU(network, library), graph.tensors)


def _network(graph: OnnxFile) -> Int8GRU | None:
    """Return the network of a graph that `student.onnx.write_onnx` has written, 8-bit."""
    nodes = [node for node in graph.nodes if node.op_type in ("GRU", "LSTM", "RNN", "Gemm")]
    grus, tensors = nodes[:-1], graph.tensors
    expected = [(f"x{k}", f"W{k}", f"R{k}", f"B{k}", "lengths") for k in range(len(grus))]
    ours = (
        graph.producer == "potstill"
        and bool(grus)
        and [node.inputs for node in grus] == expected
        and all(node.op_type == "GRU" for node in grus)
        and all(node.ints.get("linear_before_reset") == 1 for node in grus)
        and nodes[-1].inputs == ("state", "score", "bias")
        and "embedding_int8" in tensors
    )
    if not ours:
        return None
    layers: list[Int8Layer] = []
    for k, node in enumerate(grus):
        hidden, bias = node.ints["hidden_size"], tensors[f"B{k}"]
        shape = len(bias), 3 * hidden
        layer = Int8Layer(
            tensors[f"W{k}_int8"].reshape(*shape, -1),
            tensors[f"W{k}_scale"].reshape(shape),
            tensors[f"R{k}_int8"].reshape(*shape, hidden),
            tensors[f"R{k}_scale"].reshape(shape),
            bias[:, : 3 * hidden],
            bias[:, 3 * hidden :],
        )
        inputs = layers[-1].weight_hh.shape if layers else (1, 0, len(tensors["embedding_int8"][0]))
        if layer.weight_ih.shape[2] != inputs[0] * inputs[2] or layer.bias_hh.shape != shape:
            return None
        layers.append(layer)
    width = 2 * len(bias) * hidden
    if tensors["score_int8"].shape != (len(tensors["bias"]), width):
        return None
    return Int8GRU(tensors["embedding_int8"], tensors["embedding_scale"], layers)


class OnnxruntimeEngine:
    """Any ONNX file of a student, in onnxruntime.

    Raises:
        Exception: What onnxruntime raises for a file that it can't run.
    """

    name = "onnxruntime"
    one_thread = False

    def __init__(self, file: Path):
        # Both before it is loaded: it reports on its use otherwise.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, too
        # Else it ties threads to CPUs that the process may not use, and complains that it can't.
        options.intra_op_num_threads = cpus()
        # Its fallback prints what the file says, and then fails in the same way.
        self._session = onnxruntime.InferenceSession(
            str(file), options, ["CPUExecutionProvider"], enable_fallback=0
        )
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        if inputs.keys() != {"input_ids", "lengths"} or len(outputs.get("logits", ())) != 2:
            raise ValueError("it is not the ONNX file of a student")
        self._lengths = np.int64 if "int64" in inputs["lengths"] else np.int32
        self.n_labels = outputs["logits"][1]
        self.judges_words = "word_logits" in outputs
        self.run([[0], [0, 0]])  # what does not fit together shows here

    def check_token(self, token: int) -> None:
        self.run([[token]])

    def run(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        return self._run(tokens, ["logits"])[0]

    def run_words(self, tokens: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[np.ndarray]]:
        return self._run(tokens, ["logits", "word_logits"])

    def _run(
        self, tokens: Sequence[Sequence[int]], outputs: list[str]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        logits = np.empty((len(tokens), self.n_labels), np.float32)
        words = [np.empty(0, np.float32)] * len(tokens)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), BATCH_SIZE):
            indices = order[start : start + BATCH_SIZE]
            lengths = np.array([len(tokens[i]) for i in indices], self._lengths)
            input_ids = np.zeros((len(indices), lengths.max()), np.int64)
            for row, i in enumerate(indices):
                input_ids[row, : lengths[row]] = tokens[i]
            values = self._session.run(outputs, {"input_ids": input_ids, "lengths": lengths})
            logits[indices] = values[0]
            for row, i in enumerate(indices if len(outputs) > 1 else []):
                words[i] = values[1][row, : lengths[row]]
        return logits, words
