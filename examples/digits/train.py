"""Trains the digits example: a small CNN in numpy alone, written as `digits.onnx`.

Run it with the `test` extra installed: `python examples/digits/train.py`. It reads scikit-learn's
bundled digits and writes two files beside itself: the trained model and the held-out samples that
`ortolan demo` runs it on. One machine always writes the same bytes; another machine's BLAS may add
in another order and so train to other last bits.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Parameters = dict[str, Array]

HERE = Path(__file__).resolve().parent
SEED = 20250
HELD_OUT = 300
CLASSES = 10
FULL_INK = 16  # the samples count 0..16 inked cells per pixel
CHANNELS = (16, 24)
HIDDEN = 64


class Split(NamedTuple):
    """Images are uint8 [n, 8, 8] with values 0..16, labels uint8 [n]."""

    train_images: Array
    train_labels: Array
    held_out_images: Array
    held_out_labels: Array


class Cache(NamedTuple):
    """What the backward pass needs of one forward pass over n samples."""

    columns1: Array  # [n, 64, 9]
    relu1: Array  # [n, c1, 8, 8]
    columns2: Array  # [n, 64, c1 * 9]
    relu2: Array  # [n, c2, 8, 8]
    pooled: Array  # [n, c2, 4, 4]
    hidden: Array  # [n, HIDDEN]
    logits: Array  # [n, CLASSES]


def load_split() -> Split:
    """Shuffles scikit-learn's 1797 digits with a fixed seed and holds the last 300 out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    images = digits.images.astype(np.uint8)[order]
    labels = digits.target.astype(np.uint8)[order]
    return Split(images[:-HELD_OUT], labels[:-HELD_OUT], images[-HELD_OUT:], labels[-HELD_OUT:])


def to_input(images: Array) -> Array:
    """Turns uint8 images [n, 8, 8] into the model's float32 input [n, 1, 8, 8] in 0..1."""
    return (images[:, None].astype(np.float32)) / np.float32(FULL_INK)


def initial_parameters(rng: np.random.Generator, dtype: type = np.float32) -> Parameters:
    """He-normal weights in ONNX order (Conv [m, c, 3, 3], Gemm [n, k]) and zero biases."""
    c1, c2 = CHANNELS
    shapes = {
        "conv1": (c1, 1, 3, 3),
        "conv2": (c2, c1, 3, 3),
        "dense1": (HIDDEN, c2 * 16),
        "dense2": (CLASSES, HIDDEN),
    }
    parameters: Parameters = {}
    for name, shape in shapes.items():
        deviation = math.sqrt(2 / math.prod(shape[1:]))
        parameters[f"{name}.weight"] = (rng.standard_normal(shape) * deviation).astype(dtype)
        parameters[f"{name}.bias"] = np.zeros(shape[0], dtype)
    return parameters


def columns_of(x: Array) -> Array:
    """Unfolds the 3x3 neighbourhoods of [n, c, 8, 8], zero padded, to [n, 64, c * 9]."""
    n, c = x.shape[:2]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, 64, c * 9)


def image_of(columns: Array) -> Array:
    """The transpose of `columns_of`: adds [n, 64, c * 9] back up to [n, c, 8, 8]."""
    n, _, k = columns.shape
    taps = columns.reshape(n, 8, 8, k // 9, 3, 3).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((n, k // 9, 10, 10), columns.dtype)
    for y in range(3):
        for x in range(3):
            padded[:, :, y : y + 8, x : x + 8] += taps[:, :, y, x]
    return padded[:, :, 1:9, 1:9]


def convolve(columns: Array, weight: Array, bias: Array) -> Array:
    """[n, 64, c * 9] with weights [m, c, 3, 3] to [n, m, 8, 8]."""
    product = columns @ weight.reshape(len(weight), -1).T + bias
    return product.transpose(0, 2, 1).reshape(len(columns), len(weight), 8, 8)


def forward(parameters: Parameters, x: Array) -> Cache:
    """Runs the network up to the logits on inputs [n, 1, 8, 8]."""
    p = parameters
    columns1 = columns_of(x)
    relu1 = np.maximum(convolve(columns1, p["conv1.weight"], p["conv1.bias"]), 0)
    columns2 = columns_of(relu1)
    relu2 = np.maximum(convolve(columns2, p["conv2.weight"], p["conv2.bias"]), 0)
    n, c2 = relu2.shape[:2]
    pooled = relu2.reshape(n, c2, 4, 2, 4, 2).max(axis=(3, 5))
    hidden = np.maximum(pooled.reshape(n, -1) @ p["dense1.weight"].T + p["dense1.bias"], 0)
    logits = hidden @ p["dense2.weight"].T + p["dense2.bias"]
    return Cache(columns1, relu1, columns2, relu2, pooled, hidden, logits)


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def loss_of(logits: Array, labels: Array) -> float:
    """Mean cross-entropy of logits [n, CLASSES] against labels [n], in nats."""
    return float(-np.log(softmax(logits)[np.arange(len(labels)), labels]).mean())


def convolution_gradients(
    name: str, columns: Array, weight: Array, d_output: Array
) -> tuple[Parameters, Array]:
    """Gradients of one convolution, and the gradient of its unfolded input."""
    n, m = d_output.shape[:2]
    rows = d_output.reshape(n, m, 64).transpose(0, 2, 1)
    flat = rows.reshape(-1, m)
    d_weight = flat.T @ columns.reshape(len(flat), -1)
    gradients = {
        f"{name}.weight": d_weight.reshape(weight.shape),
        f"{name}.bias": flat.sum(axis=0),
    }
    return gradients, rows @ weight.reshape(m, -1)


def backward(parameters: Parameters, cache: Cache, labels: Array) -> Parameters:
    """Gradients of `loss_of` for every parameter."""
    p = parameters
    n, c2 = cache.relu2.shape[:2]
    d_logits = softmax(cache.logits)
    d_logits[np.arange(n), labels] -= 1
    d_logits /= n
    d_hidden = (d_logits @ p["dense2.weight"]) * (cache.hidden > 0)
    d_pooled = (d_hidden @ p["dense1.weight"]).reshape(cache.pooled.shape)

    blocks = cache.relu2.reshape(n, c2, 4, 2, 4, 2)
    # Cells that tie for the maximum are zeros behind the Relu, whose gradient is zero anyway.
    is_maximum = blocks == cache.pooled[:, :, :, None, :, None]
    d_relu2 = (is_maximum * d_pooled[:, :, :, None, :, None]).reshape(cache.relu2.shape)
    d_conv2 = d_relu2 * (cache.relu2 > 0)
    conv2, d_columns2 = convolution_gradients("conv2", cache.columns2, p["conv2.weight"], d_conv2)
    d_conv1 = image_of(d_columns2) * (cache.relu1 > 0)
    conv1, _ = convolution_gradients("conv1", cache.columns1, p["conv1.weight"], d_conv1)
    return {
        **conv1,
        **conv2,
        "dense1.weight": d_hidden.T @ cache.pooled.reshape(n, -1),
        "dense1.bias": d_hidden.sum(axis=0),
        "dense2.weight": d_logits.T @ cache.hidden,
        "dense2.bias": d_logits.sum(axis=0),
    }


def shifted(rng: np.random.Generator, x: Array) -> Array:
    """Moves half of the images [n, 1, 8, 8] by up to a pixel in each direction, filling with 0."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(2, 3))
    down, right = rng.integers(0, 3, (2, len(x)))
    moved = windows[np.arange(len(x)), 0, down, right][:, None]
    is_kept = rng.random(len(x)) < 0.5
    return np.where(is_kept[:, None, None, None], x, moved)


def train(
    x: Array, labels: Array, epochs: int, batch: int = 32, peak_rate: float = 3e-3
) -> Parameters:
    """Adam with a cosine-decayed step on randomly shifted samples.

    Args:
        x: inputs, float32 [n, 1, 8, 8].
        labels: integers [n] below CLASSES.
        epochs: passes over the samples.
        batch: samples per step.
        peak_rate: the first step's learning rate.

    Returns:
        The trained parameters.
    """
    rng = np.random.default_rng(SEED)
    parameters = initial_parameters(rng)
    mean = {name: np.zeros_like(value) for name, value in parameters.items()}
    square = {name: np.zeros_like(value) for name, value in parameters.items()}
    steps = epochs * math.ceil(len(x) / batch)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            chosen = order[start : start + batch]
            cache = forward(parameters, shifted(rng, x[chosen]))
            gradients = backward(parameters, cache, labels[chosen])
            step += 1
            rate = peak_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            rate *= math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for name, gradient in gradients.items():
                mean[name] += 0.1 * (gradient - mean[name])
                square[name] += 0.001 * (gradient * gradient - square[name])
                parameters[name] -= rate * mean[name] / (np.sqrt(square[name]) + 1e-8)
    return parameters


def accuracy(parameters: Parameters, x: Array, labels: Array) -> float:
    """The share of samples whose largest logit is the label."""
    return float((forward(parameters, x).logits.argmax(axis=1) == labels).mean())


def write_onnx(parameters: Parameters, path: Path) -> None:
    """Writes the network as ONNX: `image` [batch, 1, 8, 8] to `probabilities` [batch, 10]."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def layer(op: str, data: str, name: str, output: str, **attributes: Any) -> Any:
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        return helper.make_node(op, inputs, [output], name, **attributes)

    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        layer("Conv", "image", "conv1", "features1", **window),
        helper.make_node("Relu", ["features1"], ["active1"], "relu1"),
        layer("Conv", "active1", "conv2", "features2", **window),
        helper.make_node("Relu", ["features2"], ["active2"], "relu2"),
        helper.make_node(
            "MaxPool", ["active2"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten", axis=1),
        layer("Gemm", "flat", "dense1", "sums1", transB=1),
        helper.make_node("Relu", ["sums1"], ["active3"], "relu3"),
        layer("Gemm", "active3", "dense2", "logits", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])
    weights = [numpy_helper.from_array(value, name) for name, value in parameters.items()]
    graph = helper.make_graph(nodes, "digits", [image], [result], weights)
    model = helper.make_model(
        graph,
        producer_name="ortolan examples/digits",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model, full_check=True)
    save(model, path)


def compare_with_onnxruntime(path: Path, parameters: Parameters, x: Array) -> float:
    """The largest difference between onnxruntime's probabilities and this file's own."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"image": x})
    return float(np.abs(probabilities - softmax(forward(parameters, x).logits)).max())


def main() -> None:
    """Trains, checks the result on the held-out samples and writes both files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the two files")
    arguments = parser.parse_args()

    split = load_split()
    parameters = train(to_input(split.train_images), split.train_labels, arguments.epochs)
    held_out = to_input(split.held_out_images)
    model = arguments.output / "digits.onnx"
    write_onnx(parameters, model)
    difference = compare_with_onnxruntime(model, parameters, held_out)
    np.savez_compressed(
        arguments.output / "held_out.npz",
        images=split.held_out_images,
        labels=split.held_out_labels,
    )
    print(f"held-out accuracy  {accuracy(parameters, held_out, split.held_out_labels):.2%}")
    print(f"model              {model.stat().st_size} bytes")
    print(f"onnxruntime        differs by at most {difference:.2g}")


if __name__ == "__main__":
    main()
