"""A student as ONNX: one file that onnxruntime runs without torch."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from potstill.files import write_bytes
from potstill.student.model import CELLS, DistilRNN
from potstill.student.onnx_file import GATES

OPSET = 17
assert GATES.keys() == CELLS.keys(), "a cell needs an entry here, to be exported"


def write_onnx(model: DistilRNN, file: Path, int8: bool) -> None:
    """Write `model` as ONNX: input_ids (B, L) int64 and lengths (B,) int32 to logits (B, classes)
    and, of a model with a word head, word_logits (B, L, classes), those after each token.

    int8: store every matrix as 8-bit integers with a scale for each row (for each token and each
        gate's unit), a quarter of the size; the arithmetic stays fp32.
    """
    config, graph = model.config, _Graph(int8)
    graph.matrix("embedding", _array(model.embedding.weight))
    graph.node("Gather", ["embedding", "input_ids"], ["embedded"])
    graph.node("Transpose", ["embedded"], ["x0"], perm=[1, 0, 2])
    directions = ["", "_reverse"] if config.bidirectional else [""]
    width = config.hidden_size * len(directions)
    graph.integers("flat", [0, 0, width])
    for layer in range(config.layers):
        _recurrent_layer(graph, model, layer, directions)
        # (L, directions, B, hidden) to (L, B, directions · hidden), for the next layer.
        graph.node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3])
        graph.node("Reshape", [f"t{layer}", "flat"], [f"x{layer + 1}"])
    graph.node("Transpose", [f"last{config.layers - 1}"], ["last"], perm=[1, 0, 2])
    graph.integers("row", [0, width])
    graph.node("Reshape", ["last", "row"], ["ends"])
    _largest(graph, f"x{config.layers}")
    graph.node("Concat", ["ends", "largest"], ["state"], axis=1)
    graph.matrix("score", _array(model.score.weight))
    graph.vector("bias", _array(model.score.bias))
    graph.node("Gemm", ["state", "score", "bias"], ["logits"], transB=1)
    outputs: dict[str, list[str | int]] = {"logits": ["B", config.classes]}
    if model.word_score is not None:
        outputs["word_logits"] = ["B", "L", config.classes]
        graph.node("Transpose", [f"x{config.layers}"], ["states"], perm=[1, 0, 2])
        graph.matrix("word_score", _array(model.word_score.weight))
        graph.node("Transpose", ["word_score"], ["word_score_T"], perm=[1, 0])
        graph.vector("word_bias", _array(model.word_score.bias))
        graph.node("MatMul", ["states", "word_score_T"], ["word_products"])
        graph.node("Add", ["word_products", "word_bias"], ["word_logits"])
    write_bytes(file, graph.model(outputs).SerializeToString())


def _recurrent_layer(graph: "_Graph", model: DistilRNN, layer: int, directions: list[str]) -> None:
    config = model.config

    def gates(name: str) -> list[np.ndarray]:
        """Return a parameter of each direction, its gates in ONNX's order."""
        arrays = []
        for direction in directions:
            array = _array(getattr(model.rnn, f"{name}_l{layer}{direction}"))
            parts = np.split(array, len(GATES[config.cell]))
            arrays.append(np.concatenate([parts[i] for i in GATES[config.cell]]))
        return arrays

    graph.matrix(f"W{layer}", np.stack(gates("weight_ih")))
    graph.matrix(f"R{layer}", np.stack(gates("weight_hh")))
    both = zip(gates("bias_ih"), gates("bias_hh"), strict=True)
    graph.vector(f"B{layer}", np.stack([np.concatenate(pair) for pair in both]))
    # torch applies the reset gate after the recurrent product, cuDNN's way.
    attributes = {"linear_before_reset": 1} if config.cell == "gru" else {}
    graph.node(
        config.cell.upper(),
        [f"x{layer}", f"W{layer}", f"R{layer}", f"B{layer}", "lengths"],
        [f"y{layer}", f"last{layer}"],
        hidden_size=config.hidden_size,
        direction="bidirectional" if config.bidirectional else "forward",
        **attributes,
    )


def _largest(graph: "_Graph", states: str) -> None:
    """Add "largest", (B, width): the maximum of each unit's `states` (L, B, width) outside the
    padding, where ONNX leaves 0."""
    for name, value in (("0", 0), ("1", 1)):
        graph.vector(name, np.array(value, np.int64))
    graph.vector("nothing", np.array(-np.inf, np.float32))
    graph.integers("places_axis", [1])
    graph.integers("units_axis", [2])
    graph.node("Shape", [states], ["shape"])
    graph.node("Gather", ["shape", "0"], ["longest"])
    graph.node("Range", ["0", "longest", "1"], ["places"])
    graph.node("Unsqueeze", ["places", "places_axis"], ["column"])
    graph.node("Cast", ["lengths"], ["ends_at"], to=TensorProto.INT64)
    graph.node("Less", ["column", "ends_at"], ["read"])
    graph.node("Unsqueeze", ["read", "units_axis"], ["read_units"])
    graph.node("Where", ["read_units", states, "nothing"], ["what_is_read"])
    graph.node("ReduceMax", ["what_is_read"], ["largest"], axes=[0], keepdims=0)


class _Graph:
    """The nodes and constants of a graph that is being built."""

    def __init__(self, int8: bool):
        self.int8 = int8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> None:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def vector(self, name: str, array: np.ndarray) -> None:
        self.constants.append(numpy_helper.from_array(array, name))

    def integers(self, name: str, values: list[int]) -> None:
        self.vector(name, np.array(values, np.int64))

    def matrix(self, name: str, array: np.ndarray) -> None:
        """Add a constant of two or more dimensions, quantised by rows if int8 is asked for."""
        if not self.int8:
            self.vector(name, array)
            return
        rows = array.reshape(-1, array.shape[-1])
        scale = np.maximum(np.abs(rows).max(1) / 127, np.finfo(np.float32).tiny)
        self.vector(f"{name}_scale", scale.astype(np.float32))
        self.vector(f"{name}_int8", np.rint(rows / scale[:, None]).astype(np.int8))
        self.node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [f"{name}_rows"], axis=0)
        self.integers(f"{name}_shape", list(array.shape))
        self.node("Reshape", [f"{name}_rows", f"{name}_shape"], [name])

    def model(self, outputs: dict[str, list[str | int]]) -> onnx.ModelProto:
        """Return the graph as a model with fp32 `outputs` of these shapes."""
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "L"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        ]
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "DistilRNN", inputs, results, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, producer_name="potstill")
        model.ir_version = 8  # what onnxruntime of 2022 and later reads
        onnx.checker.check_model(model, full_check=True)
        return model


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
