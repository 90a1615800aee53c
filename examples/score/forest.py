"""An isolation forest as one node of ONNX.

Converters make a graph of several nodes for each tree, which takes milliseconds for a vector; yet the forest is a sum
over its trees of one number for the leaf that a vector comes to.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

# Where the forest's own threshold lies: scores are given less it.
NEUTRAL = 0.5


def path_length(count):
    """Mean depth at which a search in a random tree over `count` points ends without finding."""
    count = np.asarray(count, dtype=np.float64)
    many = np.maximum(count, 3)
    return np.select(
        [count <= 1, count == 2],
        [0.0, 1.0],
        2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many,
    )


def depths(tree):
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # parents come before their children
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    return depth


def downwards(thresholds):
    """The largest 32-bit floats not above: a 32-bit x is at most a threshold just when it is at most that."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def to_onnx(forest):
    """A model with an input `vectors` and an output `scores`: 2^(-mean depth / expected depth) - 1/2."""
    keys = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    nodes = {f"nodes_{key}": [] for key in keys}
    leaves = {f"target_{key}": [] for key in ("treeids", "nodeids", "ids", "weights")}
    expected = path_length(forest.max_samples_) * len(forest.estimators_)
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        is_leaf = tree.children_left < 0
        ids = np.arange(tree.node_count)
        columns = (
            np.full(tree.node_count, number),
            ids,
            np.where(is_leaf, 0, tree.feature),
            np.where(is_leaf, 0, downwards(tree.threshold)).astype(np.float64),
            np.where(is_leaf, "LEAF", "BRANCH_LEQ"),
            np.where(is_leaf, 0, tree.children_left),
            np.where(is_leaf, 0, tree.children_right),
        )
        for key, column in zip(nodes, columns):
            nodes[key] += column.tolist()
        weights = -(depths(tree) + path_length(tree.n_node_samples)) / expected
        count = int(is_leaf.sum())
        columns = ([number] * count, ids[is_leaf].tolist(), [0] * count, weights[is_leaf].tolist())
        for key, column in zip(leaves, columns):
            leaves[key] += column
    graph = helper.make_graph(
        [
            helper.make_node(
                "TreeEnsembleRegressor", ["vectors"], ["exponents"], domain="ai.onnx.ml", n_targets=1, **nodes, **leaves
            ),
            helper.make_node("Pow", ["two", "exponents"], ["strangeness"]),
            helper.make_node("Sub", ["strangeness", "neutral"], ["scores"]),
        ],
        "isolation forest",
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [None, forest.n_features_in_])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in (("two", 2), ("neutral", NEUTRAL))],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
