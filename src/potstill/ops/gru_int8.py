"""A stack of GRU layers in 8-bit arithmetic, for prediction: compiled, and as a plain formula.

Weights are 8-bit integers with a scale for each output. States lie between -1 and 1 and are rounded
to 1/127 where they are multiplied, embeddings are 8-bit integers already; sums of products are
exact, and all else is fp32. csrc/gru_int8.c computes the same; it needs neither torch nor
onnxruntime.
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.ops.int8_library import LayerStruct, NetworkStruct

STEPS = 127  # of a state, between 0 and 1


@dataclass(frozen=True)
class Int8Layer:
    """The weights of a layer, with ONNX's order of gates: update, reset, new.

    Args:
        weight_ih: (directions, 3 hidden, in) int8.
        scale_ih: (directions, 3 hidden) fp32: what weight_ih is multiplied with, row by row.
        weight_hh: (directions, 3 hidden, hidden) int8.
        scale_hh: (directions, 3 hidden) fp32.
        bias_ih: (directions, 3 hidden) fp32.
        bias_hh: (directions, 3 hidden) fp32; that of the new state is inside the reset.
    """

    weight_ih: np.ndarray
    scale_ih: np.ndarray
    weight_hh: np.ndarray
    scale_hh: np.ndarray
    bias_ih: np.ndarray
    bias_hh: np.ndarray


@dataclass(frozen=True)
class Int8GRU:
    """An embedding and the layers that read it.

    Args:
        embedding: (vocabulary, in) int8.
        embedding_scale: (vocabulary,) fp32.
        layers: At least one.
    """

    embedding: np.ndarray
    embedding_scale: np.ndarray
    layers: Sequence[Int8Layer]


def plain_gru_int8(network: Int8GRU, tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `CompiledGRU` returns for one sentence, step by step.

    Returns:
        (2 · directions · hidden,): the last state of each direction, then the largest value of each
        unit; and the (L, directions · hidden) states of the last layer.
    """
    rounded = network.embedding[tokens].astype(np.int32)
    scale: Any = network.embedding_scale[tokens][:, None]
    for layer in network.layers:
        directions = []
        for d in range(len(layer.weight_hh)):
            sums = rounded @ layer.weight_ih[d].T.astype(np.int32)
            gates = sums * (scale * layer.scale_ih[d]) + layer.bias_ih[d]
            directions.append(_plain_direction(layer, d, gates[::-1] if d else gates))
        last = np.concatenate([h[-1] for h in directions])
        states = np.concatenate([h[::-1] if d else h for d, h in enumerate(directions)], axis=1)
        rounded, scale = _rounded(states), np.float32(1 / STEPS)
    return np.concatenate([last, states.max(0)]), states


def _plain_direction(layer: Int8Layer, d: int, gates: np.ndarray) -> np.ndarray:
    """Return the (L, hidden) states of direction `d`, from the (L, 3 hidden) input products."""
    h, states = np.zeros(gates.shape[1] // 3, np.float32), []
    for inputs in gates:
        sums = layer.weight_hh[d].astype(np.int32) @ _rounded(h)
        inner = sums * (layer.scale_hh[d] / STEPS) + layer.bias_hh[d]
        (z, r, n), (hz, hr, hn) = inputs.reshape(3, -1), inner.reshape(3, -1)
        update, reset = _sigmoid(z + hz), _sigmoid(r + hr)
        h = update * h + (1 - update) * np.tanh(n + reset * hn)
        states.append(h)
    return np.stack(states)


def _rounded(states: np.ndarray) -> np.ndarray:
    return np.floor(states * STEPS + 0.5).astype(np.int32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


class CompiledGRU:
    """`network` in the layout of the compiled functions `library` of `int8_library`."""

    def __init__(self, network: Int8GRU, library: Any):
        self._library = library
        self._local = threading.local()
        self._arrays: list[np.ndarray] = []  # what the structs point to
        directions, _, hidden = network.layers[0].weight_hh.shape
        self.directions, self.hidden = directions, hidden
        self._units, self._vocabulary = _up(hidden), len(network.embedding)
        shift = np.int32(library.gru_int8_shift())
        layers = []
        for k, layer in enumerate(network.layers):
            weight_ih = layer.weight_ih
            if k:  # each direction's states are padded on their own
                parts = np.split(weight_ih, directions, axis=2)
                weight_ih = np.concatenate([_padded(p, 2, self._units) for p in parts], axis=2)
            else:
                weight_ih = _padded(weight_ih, 2, _up(weight_ih.shape[2]))
            pair = weight_ih, _padded(layer.weight_hh, 2, self._units)
            scale_hh = layer.scale_hh / np.float32(STEPS)
            # The compiled sums are of bytes with `shift` added; the recurrent ones are corrected in
            # the biases.
            bias_hh = layer.bias_hh - shift * scale_hh * layer.weight_hh.sum(2, dtype=np.int32)
            bias_ih = layer.bias_ih.copy()
            bias_ih[:, : 2 * hidden] += bias_hh[:, : 2 * hidden].astype(np.float32)
            shift_ih = shift * weight_ih.sum(2, dtype=np.int32)
            rows = shift_ih, layer.scale_ih, scale_hh, bias_ih
            arrays = [*map(self._packed, pair), *map(self._by_unit, rows)]
            reset_bias = bias_hh[:, 2 * hidden :].astype(np.float32)
            arrays.append(_padded(reset_bias, 1, self._units))
            layers.append(LayerStruct(weight_ih.shape[2], *map(self._address, arrays)))
        embedding = _padded(network.embedding, 1, layers[0].inputs).view(np.uint8) ^ 128
        self._layers = (LayerStruct * len(layers))(*layers)
        self._network = NetworkStruct(
            len(layers),
            directions,
            self._units,
            self._address(embedding),
            self._address(network.embedding_scale),
            ctypes.addressof(self._layers),
        )

    def _address(self, array: np.ndarray) -> int:
        self._arrays.append(np.ascontiguousarray(array))
        return self._arrays[-1].ctypes.data

    def _by_unit(self, rows: np.ndarray) -> np.ndarray:
        """Return (directions, 3 hidden) numbers as (directions, units / 16, 3, 16, …)."""
        gates = rows.reshape(self.directions, 3, self.hidden, *rows.shape[2:])
        gates = _padded(gates, 2, self._units)
        blocks = gates.reshape(self.directions, 3, -1, 16, *rows.shape[2:])
        return np.ascontiguousarray(blocks.swapaxes(1, 2))

    def _packed(self, weight: np.ndarray) -> np.ndarray:
        """Return (directions, 3 hidden, in) weights as (blocks, in / 4, 16, 4)."""
        fours = np.ascontiguousarray(weight).view(np.int32)
        blocks = self._by_unit(fours).reshape(-1, 16, fours.shape[2]).swapaxes(1, 2)
        return np.ascontiguousarray(blocks).view(np.int8).reshape(len(blocks), -1, 16, 4)

    def features(
        self, sentences: Sequence[Sequence[int]], states: bool = False
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the features of each sentence, and the states of its tokens if asked for.

        One thread computes them; several can call it at once.

        Args:
            sentences: Token ids, at least one a sentence, each a row of the embedding.

        Returns:
            (N, 2 · directions · hidden) fp32: the last state of each direction, then the largest
            value of each unit; and for each sentence (L, directions · hidden) fp32, the states of
            the last layer, or an empty list.

        Raises:
            ValueError: A sentence has no token, or one that the embedding has not.
        """
        lengths = np.fromiter(map(len, sentences), ctypes.c_long, len(sentences))
        order = np.argsort(-lengths, kind="stable")
        start = np.zeros(len(sentences) + 1, ctypes.c_long)
        np.cumsum(lengths[order], out=start[1:])
        flat = [token for i in order.tolist() for token in sentences[i]]
        tokens = np.array(flat, np.int64)
        if len(lengths) and not lengths.min():
            raise ValueError("a sentence has no token")
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self._vocabulary:
            raise ValueError(f"a token is not below {self._vocabulary}, the size of the embedding")
        tokens = tokens.astype(np.int32)
        width = self.directions * self._units
        features = np.empty((len(sentences), 2 * width), np.float32)
        all_states = np.empty((len(tokens), width), np.float32) if states else None
        network, library, many = ctypes.addressof(self._network), self._library, len(sentences)
        memory = self._memory(library.gru_int8_room(network, start.ctypes.data, many))
        library.gru_int8(
            *(network, tokens.ctypes.data, start.ctypes.data, order.ctypes.data, many),
            features.ctypes.data,
            None if all_states is None else all_states.ctypes.data,
            memory.ctypes.data,
        )
        features = self._without_padding(features)
        if all_states is None:
            return features, []
        all_states = self._without_padding(all_states)
        by_sentence = [all_states] * len(order)
        for i, first, end in zip(order.tolist(), start, start[1:], strict=False):
            by_sentence[i] = all_states[first:end]
        return features, by_sentence

    def linear(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return the (N, classes) products of (N, in) x and (classes, in) weight, with the bias.

        All are fp32 and contiguous. numpy's own product would have several threads, which get in
        the way where several threads call it.
        """
        y = np.empty((len(x), len(bias)), np.float32)
        self._library.linear(
            *(x.ctypes.data, *x.shape),
            *(weight.ctypes.data, bias.ctypes.data, len(bias), y.ctypes.data),
        )
        return y

    def _memory(self, size: int) -> np.ndarray:
        """Return at least `size` bytes of this thread's own."""
        memory: np.ndarray | None = getattr(self._local, "memory", None)
        if memory is None or len(memory) < size:
            # Kept for the next call: new memory costs as much as reading a short sentence.
            memory = self._local.memory = np.empty(size, np.uint8)
        return memory

    def _without_padding(self, rows: np.ndarray) -> np.ndarray:
        """Return (N, groups · units) `rows` as (N, groups · hidden)."""
        if self._units == self.hidden:
            return rows
        groups = rows.shape[1] // self._units
        parts = rows.reshape(len(rows), groups, self._units)[:, :, : self.hidden]
        return np.ascontiguousarray(parts.reshape(len(rows), groups * self.hidden))


def _up(n: int) -> int:
    return -(-n // 64) * 64


def _padded(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Return `array` with zeros at the end of `axis`, up to `size`."""
    if array.shape[axis] == size:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths)
