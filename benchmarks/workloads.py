"""What is measured: networks, batches and optimizers, the arrays, and how many operations they take.

All networks take images channels last. Their shapes are written here once more than in each peer, as the sizes of
their products; the number of parameters that each peer reports shows that the two agree.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# CIFAR ResNet-20: channels and stride of its blocks. Those with a stride have a 1 x 1 convolution as their shortcut.
BLOCKS = tuple(
    (channels, 2 if channels > 16 and number == 0 else 1) for channels in (16, 32, 64) for number in range(3)
)


class Product(NamedTuple):
    """A convolution, or a dense layer (one position, a window of one): what it costs for one example."""

    positions: int
    window: int
    channels: int
    features: int

    @property
    def macs(self) -> int:
        """Multiplications, each with its addition."""
        return math.prod(self)


@dataclass(frozen=True)
class Network:
    """Attributes: what it is, the shape of an example, its products from the input on, and its optimizer."""

    about: str
    shape: tuple[int, ...]
    products: tuple[Product, ...]
    parameters: int
    optimizer: str


@dataclass(frozen=True)
class Task:
    """One thing to be timed.

    Attributes:
        network: A name in `NETWORKS`.
        batch: Examples in a batch.
        mode: ``"step"``: a training step in a call. ``"scan"``: many of them in a call. ``"vmap"``: a step of many
            networks in a call. ``"infer"``: the forward pass.
        repeats: Steps or networks in a call.
        dtype: ``"float32"``; or ``"bfloat16"``, in which each peer computes as its documentation teaches.
    """

    network: str
    batch: int
    mode: str = "step"
    repeats: int = 1
    dtype: str = "float32"

    @property
    def optimizer(self) -> str:
        """``"adam"``; or ``"sgd"``, with momentum."""
        return NETWORKS[self.network].optimizer


def _resnet20() -> tuple[Product, ...]:
    products, width, channels = [Product(32 * 32, 9, 3, 16)], 32, 16
    for features, stride in BLOCKS:
        width //= stride
        products += [Product(width**2, 9, channels, features), Product(width**2, 9, features, features)]
        if stride > 1:
            products.append(Product(width**2, 1, channels, features))
        channels = features
    return (*products, Product(1, 1, 64, 10))


NETWORKS = {
    "cnn": Network(
        "conv 32 (3 x 3), pool, conv 64 (3 x 3), pool, dense 128, dense 10 on 28 x 28 images",
        (28, 28, 1),
        (Product(26 * 26, 9, 1, 32), Product(11 * 11, 9, 32, 64), Product(1, 1, 1600, 128), Product(1, 1, 128, 10)),
        225_034,
        "adam",
    ),
    "mlp": Network(
        "a 784-512-512-10 network with ReLU",
        (784,),
        (Product(1, 1, 784, 512), Product(1, 1, 512, 512), Product(1, 1, 512, 10)),
        669_706,
        "adam",
    ),
    "resnet20": Network("ResNet-20 with batch norm on 32 x 32 x 3 images", (32, 32, 3), _resnet20(), 272_474, "sgd"),
}

TASKS = {
    "cnn-32": Task("cnn", 32),
    "cnn-128": Task("cnn", 128),
    "resnet20-128": Task("resnet20", 128),
    "mlp-128": Task("mlp", 128),
    "scan-20": Task("cnn", 32, "scan", 20),
    "vmap-8": Task("cnn", 32, "vmap", 8),
    "infer-1": Task("cnn", 1, "infer"),
    "infer-256": Task("cnn", 256, "infer"),
}


def describe(task: Task) -> str:
    """One sentence on what is timed, and per what."""
    network = NETWORKS[task.network]
    optimizer = {"adam": "Adam", "sgd": "SGD with momentum"}[network.optimizer]
    kind = {
        "step": f"a training step with {optimizer}",
        "scan": f"a training step with {optimizer}, {task.repeats} of them inside one `lax.scan`",
        "vmap": f"a training step with {optimizer} of a network, {task.repeats} of them at once",
        "infer": "the forward pass",
    }[task.mode]
    return f"{network.about}: {kind}, batch {task.batch}."


def arrays(task: Task) -> dict[str, np.ndarray]:
    """Random images and labels."""
    random = np.random.default_rng(0)
    shape = (task.batch, *NETWORKS[task.network].shape)
    return {"x": random.standard_normal(shape, np.float32), "y": random.integers(0, 10, task.batch, dtype=np.int32)}


def operations(task: Task) -> int:
    """Floating point operations of the products in a step of a network, or in a forward pass.

    A training step has three products for each of the forward pass; only the first layer has no input gradient.
    """
    products = NETWORKS[task.network].products
    forward = sum(product.macs for product in products)
    macs = forward if task.mode == "infer" else 3 * forward - products[0].macs
    return 2 * macs * task.batch
