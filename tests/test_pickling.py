"""Networks, objectives and optimizers go to other processes by cloudpickle, and compute the same there."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from tests.catalog import CATALOG

cloudpickle = pytest.importorskip("cloudpickle", reason="cloudpickle, of the extra test, is not installed")

PROGRAM = """
import pickle, sys
from pathlib import Path
made, x, y = pickle.loads(Path(sys.argv[1]).read_bytes())
Path(sys.argv[2]).write_bytes(pickle.dumps(made["compute"](made, x, y)))
"""


def parts() -> dict[str, Any]:
    """A network with every kind of wrapper, an objective, an optimizer, and what they compute: all are closures."""
    relu = jax.nn.relu
    block = fnn.residual(fnn.serial(fnn.layer_norm(), fnn.dense(4), relu, fnn.dropout(0.1)))
    shifted = fnn.layer(lambda key, x: {"shift": jnp.zeros(x.shape[-1:])}, lambda params, x: x + params["shift"])
    joined = fnn.parallel(fnn.bidirectional(fnn.gru_cell(2)), fnn.attention(2))
    wired = fnn.wire(lambda f, x: f.inner(x) + x, inner=fnn.dense(4))
    net = fnn.serial(
        fnn.remat(fnn.mixed_precision(fnn.stack(block, 2))), joined, lambda pair: pair[0] + pair[1],
        fnn.experts(fnn.dense(4), 2, top=1), wired, fnn.map_layers(lambda layer: layer, shifted), fnn.batch_norm(),
        fnn.frozen(fnn.dense(4)), fnn.spectral_norm(fnn.dense(4)), fnn.weight_norm(fnn.dense(4)),
        fnn.ensemble(fnn.dense(3), 2), lambda x: x.mean((0, 2)),
    )  # fmt: skip

    def loss(y: Any, target: Any) -> Any:
        return optax.losses.squared_error(y, target).sum(-1)

    objective = fnn.supervised(
        net, loss, metrics={"r2": fnn.r2()}, penalty=lambda params: 1e-3 * fnn.l2(params, "*kernel")
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-2, 9)))
    augment = fnn.augment.random_flip(1, probability=0.5)

    def compute(made: dict[str, Any], x: Any, y: Any) -> Any:
        key = jax.random.key(0)
        run = fnn.train_init(made["net"], made["optimizer"], key, x)
        step = jax.jit(fnn.train_step(made["objective"], made["optimizer"], augment=made["augment"]))
        run, metrics = step(run, (x, y))
        out, _ = jax.jit(made["net"].apply)(run.params, run.state, x)
        return jax.tree.map(np.asarray, (run.params, run.opt_state, metrics, out))

    return {"net": net, "objective": objective, "optimizer": optimizer, "augment": augment, "compute": compute}


def test_a_new_process_computes_the_same(tmp_path: Path) -> None:
    made = parts()
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(4, 5, 4)).astype(np.float32), draw.normal(size=(4, 3)).astype(np.float32)
    (tmp_path / "in").write_bytes(cloudpickle.dumps((made, x, y)))
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(Path(fnn.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(
        command, env={**os.environ, **settings}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    jax.tree.map(
        np.testing.assert_array_equal, made["compute"](made, x, y), pickle.loads((tmp_path / "out").read_bytes())
    )
    assert repr(cloudpickle.loads(cloudpickle.dumps(made["net"]))) == repr(made["net"])


@pytest.mark.parametrize("row", CATALOG, ids=[row.name for row in CATALOG])
def test_every_layer_can_be_pickled(row: Any) -> None:
    net = row.make()
    again = cloudpickle.loads(cloudpickle.dumps(net))
    # A function that JAX compiled, such as jax.nn.silu, has no name once it was pickled.
    plain = lambda layer: re.sub(r"activation=\w+", "", repr(layer))
    assert plain(again) == plain(net)
