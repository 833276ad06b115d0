"""Reading the weights of a student's ONNX file, without the packages onnx and torch.

A file is a message of Protocol Buffers (protobuf.dev/programming-guides/encoding), whose fields are
those of onnx.proto: pairs of a key, which holds a field's number and how it is stored, and a value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# TensorProto.DataType
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 3: np.dtype("i1"), 7: np.dtype("<i8")}
# ONNX's order of the gates of each kind of cell, as indices in torch's.
GATES = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}


@dataclass(frozen=True)
class Node:
    """A node of the graph; `ints` are its attributes that are whole numbers."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: dict[str, int]


@dataclass(frozen=True)
class OnnxFile:
    """What the file has that predicts.

    Args:
        producer: The program that wrote it.
        nodes: In the order of the file.
        tensors: The constants by name; those of other types than fp32, int8 and int64 are left out.
    """

    producer: str
    nodes: list[Node]
    tensors: dict[str, np.ndarray]


def read_onnx(body: bytes) -> OnnxFile:
    """Return what an ONNX file holds.

    Raises:
        ValueError: It is damaged.
    """
    producer, nodes, tensors = "", [], {}
    try:
        for number, value in _fields(memoryview(body)):
            if number == 2:
                producer = _text(value)
            elif number == 7:  # the graph
                for inner, part in _fields(_bytes(value)):
                    if inner == 1:
                        nodes.append(_node(part))
                    elif inner == 5 and (named := _tensor(part)):
                        tensors[named[0]] = named[1]
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("it is damaged") from error
    return OnnxFile(producer, nodes, tensors)


def network_weights(
    tensors: dict[str, np.ndarray], cell: str, layers: int
) -> dict[str, np.ndarray]:
    """Return the weights of a student's network by their names in a `DistilRNN`, fp32, without
    those of the layers that score its classes.

    Args:
        tensors: Constants of a file that `student.onnx.write_onnx` has written, 8-bit or fp32.
        cell: Kind of its recurrent layers: a key of `GATES`.
        layers: How many of these it has.

    Raises:
        ValueError: They are not those of such a network.
    """
    order = np.argsort(GATES[cell])
    try:
        arrays = {"embedding.weight": matrix(tensors, "embedding")}
        for k in range(layers):
            biases = np.split(tensors[f"B{k}"], 2, axis=1)
            of_layer = [matrix(tensors, f"W{k}"), matrix(tensors, f"R{k}"), *biases]
            names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
            for name, directions in zip(names, of_layer, strict=True):
                for array, suffix in zip(directions, ("", "_reverse"), strict=False):
                    gates = np.split(array, len(order))
                    arrays[f"rnn.{name}_l{k}{suffix}"] = np.concatenate([gates[i] for i in order])
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from error
    return arrays


def matrix(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return a matrix as it is stored or, of one in 8 bits, its rows times their scales.

    Raises:
        KeyError: There is none of this name.
    """
    if name in tensors:
        return tensors[name]
    with np.errstate(over="ignore", invalid="ignore"):  # damaged scales: the answers are checked
        rows = tensors[f"{name}_int8"] * tensors[f"{name}_scale"][:, None]
    return rows.reshape(tensors[f"{name}_shape"])


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field: whole numbers, or the bytes of all others."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("it is damaged")
        if at + size > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is damaged")
    return value


def _node(message: int | memoryview) -> Node:
    inputs, outputs, op_type, ints = [], [], "", {}
    for number, value in _fields(_bytes(message)):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op_type = _text(value)
        elif number == 5:  # an attribute: 1 is its name, 3 a whole number
            attribute = dict(_fields(_bytes(value)))
            if isinstance(whole := attribute.get(3), int):
                ints[_text(attribute[1])] = whole
    return Node(op_type, tuple(inputs), tuple(outputs), ints)


def _tensor(message: int | memoryview) -> tuple[str, np.ndarray] | None:
    """Return name and values of a constant stored as raw bytes; None if it is not."""
    shape: list[int] = []
    dtype, name, raw = 0, "", None
    for number, value in _fields(_bytes(message)):
        if number == 1 and isinstance(value, int):
            shape.append(value)
        elif number == 1:  # packed: one after the other
            packed, at = _bytes(value), 0
            while at < len(packed):
                size, at = _varint(packed, at)
                shape.append(size)
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
    if dtype not in DTYPES or raw is None:
        return None
    return name, np.frombuffer(raw, DTYPES[dtype]).reshape(shape)
