"""Builds ``model.onnx`` beside it: a small random face embedder with the interface of a real one.

It has learned nothing: equal images get equal embeddings, and that is all it knows. It stands where a trained
network will, so that everything around it runs. ``python -m e4t_core.bundled.identity_tiny.build`` writes it anew.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MODEL = Path(__file__).with_name("model.onnx")
SIDE, WIDTH, SEED = 64, 128, 20230223
_CHANNELS = (3, 16, 32, 48, 48)
_OPSET, _IR = 17, 8


def build() -> onnx.ModelProto:
    """(N, 3, 64, 64) RGB, scaled to [-1, 1] -> (N, 128): four strided convolutions, pooling to 2 x 2, one linear.

    The mean over features is taken out at the end: without it, rectified random features all point the same way.
    """
    stream = _Stream(SEED)
    nodes, weights, x = [], [], "image"
    for i, (into, out) in enumerate(pairwise(_CHANNELS)):
        weights.append(numpy_helper.from_array(stream.uniform((out, into, 3, 3), fan_in=into * 9), f"conv{i}.weight"))
        nodes.append(helper.make_node("Conv", [x, f"conv{i}.weight"], [f"conv{i}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]))
        x = f"relu{i}"
    linear = stream.uniform((_CHANNELS[-1] * 4, WIDTH), fan_in=_CHANNELS[-1] * 4)
    weights.append(numpy_helper.from_array(linear, "linear.weight"))
    nodes += [
        helper.make_node("AveragePool", [x], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "linear.weight"], ["features"]),
        helper.make_node("ReduceMean", ["features"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["features", "mean"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", WIDTH])
    graph = helper.make_graph(nodes, "identity_tiny", [image], [embedding], weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="e4t"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Stream:
    """Uniform weights from Philox's raw words, whose values numpy guarantees for good."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.Philox(seed)

    def uniform(self, shape: tuple[int, ...], fan_in: int) -> NDArray[np.float32]:
        """He-scaled weights: variance 2 / ``fan_in``."""
        unit = (self._words.random_raw(int(np.prod(shape))) >> np.uint64(11)) * 2.0**-53
        return ((2 * unit - 1) * np.sqrt(6 / fan_in)).reshape(shape).astype(np.float32)


if __name__ == "__main__":
    onnx.save(build(), MODEL)
