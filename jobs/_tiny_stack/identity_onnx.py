"""The identity network as an ONNX graph: written node by node, because torch's exporter needs one more library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from jobs._tiny_stack.identity_net import ConvNorm, IdentityNet, Residual

_OPSET, _IR = 17, 8


def to_onnx(net: IdentityNet, facts: Mapping[str, str]) -> onnx.ModelProto:
    """``image`` (N, 3, S, S) in [-1, 1] -> ``embedding`` (N, width), batch normalisation folded in.

    ``facts`` become the model's metadata.
    """
    graph = _Graph()
    x = graph.relu(graph.conv("stem", net.stem, "image"))
    for i, block in enumerate(net.blocks):
        x = graph.residual(f"blocks.{i}", block, x)  # type: ignore[arg-type]
    flat = graph.node("Flatten", [x], "flat", axis=1)
    weights = [graph.weight("linear.weight", net.linear.weight), graph.weight("linear.bias", net.linear.bias)]
    graph.node("Gemm", [flat, *weights], "embedding", transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, net.size, net.size])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", net.width])
    whole = helper.make_graph(graph.nodes, "identity_tiny", [image], [embedding], graph.weights)
    model = helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="e4t"
    )
    helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    return model


def from_onnx(net: IdentityNet, model: onnx.ModelProto) -> None:
    """Fill ``net`` with the weights of a model that :func:`to_onnx` wrote for the same sizes."""
    found = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    for name, module in net.named_modules():
        if isinstance(module, ConvNorm):
            module.unfold(found[f"{name}.weight"], found[f"{name}.bias"])
    with torch.no_grad():
        net.linear.weight.copy_(found["linear.weight"])
        net.linear.bias.copy_(found["linear.bias"])


class _Graph:
    """Nodes and weights so far. A node's name is its output's."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, name: str, value: Tensor) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value.detach().cpu().numpy()), name))
        return name

    def conv(self, name: str, layer: ConvNorm, x: str) -> str:
        conv: Any = layer[0]
        weight, bias = layer.folded()
        names = [self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)]
        pads = [conv.padding[0]] * 4
        return self.node("Conv", [x, *names], name, strides=list(conv.stride), pads=pads)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}.relu")

    def residual(self, name: str, block: Residual, x: str) -> str:
        inner = self.conv(f"{name}.second", block.second, self.relu(self.conv(f"{name}.first", block.first, x)))
        short = x if block.short is None else self.conv(f"{name}.short", block.short, x)
        return self.relu(self.node("Add", [short, inner], f"{name}.sum"))
