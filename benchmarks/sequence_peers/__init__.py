"""Who is measured on sequences: one file for each library, made and imported as those of `benchmarks.peers` are."""

from dataclasses import dataclass, replace

from benchmarks import peers
from benchmarks.harness import Peer
from benchmarks.peers import preparing
from benchmarks.workloads import Task


@dataclass(frozen=True)
class SequenceTask(Task):
    """One thing to be timed, of a network that reads ids.

    Attributes:
        mode: ``"step"``: a training step in a call. ``"generate"``: ids that go on from a prompt.
        vocabulary: How many ids there are.
        width: Features of each step of a sequence.
        blocks: Of a transformer, as are the next two.
        heads: Of each attention.
        positions: How many are learned.
        length: Ids in each sequence of the batch: what is read in training, or the prompt.
        tokens: Ids that are generated for each sequence.
        optimizer: ``"adam"``; or ``"adamw"``, with the rate and decay of GPT-2.
    """

    vocabulary: int = 65
    width: int = 256
    blocks: int = 4
    heads: int = 4
    positions: int = 64
    length: int = 64
    tokens: int = 0
    optimizer: str = "adam"


_TORCH = "PyTorch peer"
_FILES = {
    "fnn": "fnn_",
    "flax-nnx": "flax_nnx",
    "flax-linen": "flax_linen",
    "equinox": "equinox_",
    "haiku": "haiku_",
    "pytorch": "torch_",
}

PEERS = {name: replace(peers.PEERS[name], prepare=preparing(file, __name__)) for name, file in _FILES.items()}
PEERS["pytorch"] = replace(PEERS["pytorch"], family=_TORCH)
PEERS["pytorch-compiled"] = replace(
    PEERS["pytorch"], title="PyTorch, torch.compile", prepare=preparing("torch_", __name__, compiled=True)
)
PEERS["transformers"] = Peer(
    "Transformers on PyTorch",
    ("torch", "transformers"),
    ("torch", "transformers"),
    preparing("transformers_", __name__),
    family=_TORCH,
)

TRAINING = tuple(_FILES)
COMPILED = ("fnn", "flax-nnx", "pytorch-compiled")
GENERATING = ("fnn", "transformers")
