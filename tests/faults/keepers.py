"""Libraries that keep checkpoints, behind one interface: save a tree of a step, and bring one back.

Each is used as its documentation shows and with its defaults. Orbax and fnn look after a folder. Flax, Equinox and
Keras write one file; there each step has a file of its own, and the newest is that with the largest number in its name.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Tree = dict[str, dict[str, np.ndarray]]

WIDTH = 160  # a kernel has 102 kB


def tree_of(step: int, writer: int = 0) -> Tree:
    """Weights of two dense layers; those of another step or writer are others."""
    rng = np.random.default_rng([step, writer])
    values = lambda *shape: rng.standard_normal(shape, np.float32)
    return {layer: {"kernel": values(WIDTH, WIDTH), "bias": values(WIDTH)} for layer in ("first", "second")}


def blank() -> Tree:
    """What a program has before it restores."""
    return {layer: {name: np.zeros_like(leaf) for name, leaf in part.items()} for layer, part in tree_of(0).items()}


def leaves_of(tree: Tree) -> list[np.ndarray]:
    """The arrays, in the order in which Keras has them."""
    return [tree[layer][name] for layer in ("first", "second") for name in ("kernel", "bias")]


def same(tree: Any, wanted: Tree) -> bool:
    """Whether a tree has the wanted arrays, bit by bit."""
    pairs = zip(map(np.asarray, leaves_of(tree)), leaves_of(wanted))
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


class Keeper:
    """The checkpoints in a folder, as a library keeps them.

    Args:
        folder: Where; it exists.

    Attributes:
        package: What is imported.
        distribution: What is installed.
    """

    package: ClassVar[str]
    distribution: ClassVar[str]

    def __init__(self, folder: Path):
        self.folder, self.library = folder, import_module(self.package)

    def save(self, step: int, tree: Tree) -> None:
        """Write a checkpoint, and return when the library says that it is written."""
        raise NotImplementedError

    def restore(self, step: int | None = None) -> tuple[int, Any]:
        """The newest checkpoint, or that of a step."""
        raise NotImplementedError


class Fnn(Keeper):
    """`fnn.Checkpoints`."""

    package = distribution = "fnn"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.checkpoints = self.library.Checkpoints(folder)

    def save(self, step: int, tree: Tree) -> None:
        self.checkpoints.save(step, tree)

    def restore(self, step: int | None = None) -> tuple[int, Any]:
        if step is not None:
            (file,) = self.folder.glob(f"*-step-{step}.safetensors")
            return step, self.library.load(file, blank())
        found = self.checkpoints.restore(blank())
        if found is None:
            raise FileNotFoundError(f"{self.folder} has no checkpoint")
        return found.step, found.tree


class Orbax(Keeper):
    """`orbax.checkpoint.CheckpointManager`."""

    package, distribution = "orbax.checkpoint", "orbax-checkpoint"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.manager = self.library.CheckpointManager(folder)

    def save(self, step: int, tree: Tree) -> None:
        if not self.manager.save(step, args=self.library.args.StandardSave(tree)):
            raise ValueError(f"save returned False for step {step}")
        self.manager.wait_until_finished()

    def restore(self, step: int | None = None) -> tuple[int, Any]:
        step = self.manager.latest_step() if step is None else step
        if step is None:
            raise FileNotFoundError(f"{self.folder} has no checkpoint")
        return step, self.manager.restore(step, args=self.library.args.StandardRestore(blank()))


class Files(Keeper):
    """A library that writes a file, and leaves the folder to its user."""

    ending: ClassVar[str]

    def write(self, file: Path, tree: Tree) -> None:
        raise NotImplementedError

    def read(self, file: Path) -> Any:
        raise NotImplementedError

    def save(self, step: int, tree: Tree) -> None:
        self.write(self.folder / f"{step}{self.ending}", tree)

    def restore(self, step: int | None = None) -> tuple[int, Any]:
        if step is None:
            step = max(int(file.name.removesuffix(self.ending)) for file in self.folder.glob(f"*{self.ending}"))
        return step, self.read(self.folder / f"{step}{self.ending}")


class Flax(Files):
    """`flax.serialization`, and the bytes written with `open`."""

    package, distribution, ending = "flax.serialization", "flax", ".msgpack"

    def write(self, file: Path, tree: Tree) -> None:
        with open(file, "wb") as out:
            out.write(self.library.to_bytes(tree))

    def read(self, file: Path) -> Any:
        with open(file, "rb") as source:
            return self.library.from_bytes(blank(), source.read())


class Equinox(Files):
    """`equinox.tree_serialise_leaves`."""

    package, distribution, ending = "equinox", "equinox", ".eqx"

    def write(self, file: Path, tree: Tree) -> None:
        self.library.tree_serialise_leaves(file, tree)

    def read(self, file: Path) -> Any:
        return self.library.tree_deserialise_leaves(file, blank())


class Keras(Files):
    """`Model.save_weights`, of two dense layers."""

    package, distribution, ending = "keras", "keras", ".weights.h5"

    def __init__(self, folder: Path):
        super().__init__(folder)
        layers = self.library.layers
        parts = [layers.Dense(WIDTH, name="first"), layers.Dense(WIDTH, name="second")]
        self.model = self.library.Sequential([self.library.Input((WIDTH,)), *parts])

    def write(self, file: Path, tree: Tree) -> None:
        self.model.set_weights(leaves_of(tree))
        self.model.save_weights(file)

    def read(self, file: Path) -> Any:
        self.model.load_weights(file)
        values = iter(self.model.get_weights())
        return {layer: {name: next(values) for name in ("kernel", "bias")} for layer in ("first", "second")}


KEEPERS: dict[str, type[Keeper]] = {"fnn": Fnn, "orbax": Orbax, "flax": Flax, "equinox": Equinox, "keras": Keras}
