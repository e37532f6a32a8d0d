"""Weights of PyTorch make the same networks here; what does not fit is named."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import fnn

rng = np.random.default_rng(0)
BLOCKS, FEATURES, HEADS, HIDDEN, SIZE = 3, 8, 2, 12, 5
sequences = rng.normal(size=(2, 6, FEATURES)).astype(np.float32)
images = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def torch() -> Any:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    torch.manual_seed(0)
    return torch


def save_module(torch: Any, module: Any, file: Path) -> Any:
    """Save a module whose biases, scales and statistics are not those it started from; no two of its blocks agree."""
    from safetensors.torch import save_file

    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.3 * torch.rand_like(tensor)
    save_file(module.state_dict(), file)
    return module.eval()


def agree(net: fnn.Layer, trees: Any, x: np.ndarray, theirs: Any) -> None:
    y, _ = net.apply(trees["params"], trees["state"], x)
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


def wanted(net: fnn.Layer, x: np.ndarray) -> Any:
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    return {"params": params, "state": state}


def linear(ours: str, theirs: str, join: str = "/") -> dict[str, str | fnn.From]:
    weight = fnn.From(f"{theirs}.weight", by=np.transpose)
    return {f"params/{ours}{join}kernel": weight, f"params/{ours}{join}bias": f"{theirs}.bias"}


def norm(ours: str, theirs: str) -> dict[str, str | fnn.From]:
    return {f"params/{ours}/scale": f"{theirs}.weight", f"params/{ours}/bias": f"{theirs}.bias"}


def torch_resnet(torch: Any) -> Any:
    nn = torch.nn

    def conv(before: int, features: int, window: int, stride: int) -> Any:
        return nn.Conv2d(before, features, window, stride, window // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, before: int, features: int, stride: int):
            super().__init__()
            self.conv1, self.bn1 = conv(before, features, 3, stride), nn.BatchNorm2d(features)
            self.conv2, self.bn2 = conv(features, features, 3, 1), nn.BatchNorm2d(features)
            shortcut = (conv(before, features, 1, stride), nn.BatchNorm2d(features))
            self.downsample = nn.Sequential(*(shortcut if stride > 1 else ()))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(self.downsample(x) + y)

    return nn.Sequential(
        conv(3, 4, 3, 1), nn.BatchNorm2d(4), nn.ReLU(), Block(4, 4, 1), Block(4, 6, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def test_a_resnet_of_pytorch_with_its_statistics(torch: Any, tmp_path: Path) -> None:
    def unit(features: int, window: int = 3, strides: int = 1) -> fnn.Layer:
        conv = fnn.conv(features, (window, window), strides=strides, padding=window // 2, bias=False)
        return fnn.serial(conv=conv, norm=fnn.batch_norm())

    def block(features: int, strides: int = 1) -> fnn.Layer:
        body = fnn.serial(first=unit(features, strides=strides), relu=jax.nn.relu, second=unit(features))
        return fnn.residual(body, unit(features, 1, strides) if strides > 1 else None)

    def from_unit(ours: str, conv: str, batch_norm: str) -> dict[str, str | fnn.From]:
        kernel = fnn.From(f"{conv}.weight", by=lambda w: w.transpose(2, 3, 1, 0))
        running = {f"state/{ours}/norm/{part}": f"{batch_norm}.running_{part}" for part in ("mean", "var")}
        return {f"params/{ours}/conv/kernel": kernel} | norm(f"{ours}/norm", batch_norm) | running

    net = fnn.serial(
        stem=unit(4), relu=jax.nn.relu, block1=block(4), relu1=jax.nn.relu, block2=block(6, 2), relu2=jax.nn.relu,
        pool=fnn.global_mean_pool(), head=fnn.dense(5),
    )  # fmt: skip
    names = from_unit("stem", "0", "1") | linear("head", "7")
    for ours, theirs in (("block1", "3"), ("block2", "4")):
        names |= from_unit(f"{ours}/body/first", f"{theirs}.conv1", f"{theirs}.bn1")
        names |= from_unit(f"{ours}/body/second", f"{theirs}.conv2", f"{theirs}.bn2")
    names |= from_unit("block2/shortcut", "4.downsample.0", "4.downsample.1")

    module = save_module(torch, torch_resnet(torch), tmp_path / "a")
    like = wanted(net, images)
    with pytest.raises(fnn.MisfitError, match=r"1\.num_batches_tracked +nothing +int64\[\]"):
        fnn.load(tmp_path / "a", like, names=names)
    trees = fnn.load(tmp_path / "a", like, names=names, ignore=["*.num_batches_tracked"])
    agree(net, trees, images, module(torch.tensor(images.transpose(0, 3, 1, 2))))


def lstm_names(ours: str, place: str) -> dict[str, str | fnn.From]:
    return {
        f"params/{ours}/kernel": fnn.From(f"lstm.weight_ih_{place}", by=np.transpose),
        f"params/{ours}/recurrent_kernel": fnn.From(f"lstm.weight_hh_{place}", by=np.transpose),
        f"params/{ours}/bias": fnn.From(f"lstm.bias_ih_{place}", f"lstm.bias_hh_{place}", by=np.add),
    }


def torch_tagger(torch: Any, file: Path, before: int, **options: Any) -> tuple[Any, Any]:
    lstm = torch.nn.LSTM(before, SIZE, num_layers=2, batch_first=True, **options)
    outputs = SIZE * (2 if lstm.bidirectional else 1)
    module = save_module(torch, torch.nn.ModuleDict({"lstm": lstm, "head": torch.nn.Linear(outputs, 3)}), file)
    x = sequences[..., :before]
    return x, module["head"](lstm(torch.tensor(x))[0])


def test_two_lstms_of_pytorch_that_read_both_ways(torch: Any, tmp_path: Path) -> None:
    x, theirs = torch_tagger(torch, tmp_path / "a", FEATURES, bidirectional=True)
    both = lambda: fnn.bidirectional(fnn.lstm_cell(SIZE))
    net = fnn.serial(first=both(), second=both(), head=fnn.dense(3))
    names = linear("head", "head")
    for number, ours in enumerate(("first", "second")):
        names |= lstm_names(f"{ours}/forward", f"l{number}") | lstm_names(f"{ours}/backward", f"l{number}_reverse")
    agree(net, fnn.load(tmp_path / "a", wanted(net, x), names=names), x, theirs)


def test_two_lstms_of_pytorch_as_one_stack(torch: Any, tmp_path: Path) -> None:
    x, theirs = torch_tagger(torch, tmp_path / "a", SIZE)
    net = fnn.serial(lstm=fnn.stack(fnn.lstm(SIZE), 2), head=fnn.dense(3))
    names = lstm_names("lstm", "l{}") | linear("head", "head")
    agree(net, fnn.load(tmp_path / "a", wanted(net, x), names=names), x, theirs)


def test_a_transformer_of_pytorch(torch: Any, tmp_path: Path) -> None:
    gelu = partial(torch.nn.functional.gelu, approximate="tanh")
    layer = torch.nn.TransformerEncoderLayer(FEATURES, HEADS, HIDDEN, 0.0, gelu, batch_first=True, norm_first=True)
    final = torch.nn.LayerNorm(FEATURES)
    module = torch.nn.TransformerEncoder(layer, BLOCKS, final, enable_nested_tensor=False)
    save_module(torch, module, tmp_path / "a")

    def third(number: int) -> Callable[[Any], Any]:
        return lambda fused: np.split(fused, 3)[number].T

    block, their = "blocks/attention", "layers.{}"
    names = norm("norm", "norm")
    for number, part in enumerate(("query", "key", "value")):
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            source = fnn.From(f"{their}.self_attn.in_proj_{theirs}", by=third(number))
            names[f"params/{block}/{part}_{ours}"] = source
    names |= linear(f"{block}/out", f"{their}.self_attn.out_proj", "_")
    names |= linear("blocks/feed_forward/up", f"{their}.linear1", "_")
    names |= linear("blocks/feed_forward/down", f"{their}.linear2", "_")
    names |= norm("blocks/attention_norm", f"{their}.norm1") | norm("blocks/feed_forward_norm", f"{their}.norm2")

    net = fnn.encoder(BLOCKS, HEADS, HIDDEN)
    trees = fnn.load(tmp_path / "a", wanted(net, sequences), names=names)
    assert trees["params"]["blocks"]["attention"]["query_kernel"].shape == (BLOCKS, FEATURES, FEATURES)
    agree(net, trees, sequences, module(torch.tensor(sequences)))


def test_a_table_that_pytorch_shares_is_there_under_one_name(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_tensors, save_model

    embedding, head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False)
    head.weight = embedding.weight
    module = torch.nn.ModuleDict({"embedding": embedding, "head": head})
    with pytest.raises(RuntimeError, match="share memory"):
        save_tensors(module.state_dict(), tmp_path / "a")
    save_model(module, str(tmp_path / "a"))  # keeps the first name alone

    like = {"embedding": {"embedding": jnp.zeros((7, 4))}, "head": {"kernel": jnp.zeros((4, 7))}}
    twice = {"embedding/embedding": "embedding.weight", "head/kernel": fnn.From("embedding.weight", by=np.transpose)}
    found = fnn.load(tmp_path / "a", like, names=twice)
    np.testing.assert_array_equal(found["embedding"]["embedding"], embedding.weight.detach())
    np.testing.assert_array_equal(found["head"]["kernel"].T, embedding.weight.detach())
    with pytest.raises(fnn.MisfitError, match=r"head/kernel +float32\[4,7\] +no head.weight"):
        fnn.load(tmp_path / "a", like, names=twice | {"head/kernel": fnn.From("head.weight", by=np.transpose)})


LIKE = {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}
GOOD = {"bias": "fc.bias", "kernel": fnn.From("fc.weight", by=np.transpose)}
WEIGHT, BIAS = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=2).astype(np.float32)


def shifted(weight: Any) -> Any:
    return weight.transpose(2, 1, 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"kernel": "fc.weigth"}, r"kernel +float32\[3,2\] +no fc.weigth\n +fc.weight +nothing +float32\[2,3\]"),
        ({"kernel": fnn.From("fc.{}.weight", by=np.transpose)}, r"kernel +float32\[3,2\] +no fc.0.weight"),
        ({"kernel": "fc.weight"}, r"kernel +float32\[3,2\] +float32\[2,3\] from From\('fc.weight'\)"),
        ({"kernel": fnn.From("fc.weight", by=shifted)}, r"From\('fc.weight', by=shifted\) failed for kernel: axes"),
        ({"kernels": "fc.weight"}, r"names has kernels, which the wanted tree has not; it has bias, kernel"),
    ],
    ids=["a missing name", "no numbered name", "a transpose left out", "by= fails", "a path that is not wanted"],
)
def test_what_is_wrong_is_named(names: dict[str, str | fnn.From], message: str, tmp_path: Path) -> None:
    save_file({"fc.weight": WEIGHT, "fc.bias": BIAS}, tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        fnn.load(tmp_path / "a", LIKE, names=GOOD | names)


def test_arrays_that_nobody_reads_are_named_or_ignored(tmp_path: Path) -> None:
    save_file({"fc.weight": WEIGHT, "fc.bias": BIAS, "fc.mask": WEIGHT, "head.bias": BIAS}, tmp_path / "a")
    with pytest.raises(fnn.MisfitError) as caught:
        fnn.load(tmp_path / "a", LIKE, names=GOOD, ignore=["*.mask"])
    assert [line.split() for line in str(caught.value).splitlines()[2:]] == [["head.bias", "nothing", "float32[2]"]]
    assert set(fnn.load(tmp_path / "a", LIKE, names=GOOD, ignore=["*.mask", "head.*"])) == {"bias", "kernel"}


def test_blocks_of_which_one_is_missing_are_too_few(tmp_path: Path) -> None:
    save_file({f"{number}.bias": BIAS for number in (0, 1, 3)}, tmp_path / "a")
    with pytest.raises(fnn.MisfitError, match=r"3\.bias +nothing"):
        fnn.load(tmp_path / "a", {"bias": jnp.zeros((4, 2))}, names={"bias": "{}.bias"})


def test_half_precision_becomes_that_of_the_parameters(tmp_path: Path) -> None:
    save_file({"fc.weight": WEIGHT.astype(ml_dtypes.bfloat16), "fc.bias": BIAS.astype(np.float16)}, tmp_path / "a")
    found = fnn.load(tmp_path / "a", LIKE, names=GOOD)
    assert {array.dtype for array in found.values()} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(found["kernel"].T, WEIGHT.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(found["bias"], BIAS.astype(np.float16).astype(np.float32))


def test_from_takes_names() -> None:
    with pytest.raises(TypeError, match="2 names need by="):
        fnn.From("a", "b")
    with pytest.raises(TypeError, match="takes names of arrays"):
        fnn.From()


def test_arrays_are_cast_before_they_are_joined_and_where_no_name_is_given(tmp_path: Path) -> None:
    import ml_dtypes
    from safetensors.numpy import save_file

    small = np.array([2.0**-9], ml_dtypes.bfloat16)
    save_file({"a": np.ones(1, ml_dtypes.bfloat16), "b": small, "bias": small}, tmp_path / "a")
    like = {"sum": np.zeros(1, np.float32), "bias": np.zeros(1, np.float32)}
    found = fnn.load(tmp_path / "a", like, names={"sum": fnn.From("a", "b", by=np.add)})
    assert found["sum"].item() == 1 + 2.0**-9
    assert found["bias"].dtype == np.float32


def test_names_with_and_without_numbers_may_be_mixed(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", {"shared": np.full(2, 10.0), "block": {"0": np.ones(2), "1": np.zeros(2)}})
    source = fnn.From("shared", "block/{}", by=np.add)
    found = fnn.load(tmp_path / "a", {"x": np.zeros((2, 2))}, names={"x": source})
    assert found["x"].tolist() == [[11, 11], [10, 10]]
