"""Steps on four devices beside the same step on one; prints the largest differences as JSON.

A process of its own: the number of devices is fixed when JAX starts. `test_data_parallel.py` runs it.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import fnn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)).astype(np.float32), RNG.integers(0, 4, 8).astype(np.int32)
WEIGHT = np.array([1, 2, 0.5, 1, 0, 0, 0, 3], np.float32)  # the third device has rows of weight 0 only
CROSS_ENTROPY = optax.losses.softmax_cross_entropy_with_integer_labels
SGD = optax.sgd(0.5)


def net(axis_name: str | None) -> fnn.Layer:
    return fnn.serial(fnn.dense(5), fnn.batch_norm(axis_name=axis_name), jnp.tanh, fnn.dense(4))


def supervised(axis_name: str | None) -> Any:
    penalty = lambda params: 0.1 * fnn.l2(params, "*kernel")
    return fnn.supervised(net(axis_name), CROSS_ENTROPY, metrics={"accuracy": fnn.accuracy}, penalty=penalty)


def custom(axis_name: str | None) -> Any:
    network = net(axis_name)

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Any:
        y, state = network.apply(params, state, batch[0], train=train)
        return jnp.mean(y**2), (state, {"rows": jnp.float32(3)})

    return objective


CASES = {
    "weights": (supervised, SGD, (X, Y, WEIGHT)),
    "no weights": (supervised, SGD, (X, Y)),
    "custom objective": (custom, SGD, (X, Y)),
    "scaled and averaged": (supervised, fnn.loss_scaling(fnn.ema(SGD)), (X, Y, WEIGHT)),
    "lbfgs": (supervised, optax.lbfgs(), (X, Y, WEIGHT)),
}


def difference(case: str, axis_type: AxisType, check_vma: bool) -> float:
    objective, optimizer, batch = CASES[case]
    run = fnn.train_init(net(None), optimizer, jax.random.key(0), X)
    alone = jax.jit(fnn.train_step(objective(None), optimizer))(run, batch)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    step = fnn.train_step(objective("data"), optimizer, axis_name="data", watch=fnn.norms())
    spread = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=check_vma)
    run, batch = jax.device_put(run, NamedSharding(mesh, P())), jax.device_put(batch, NamedSharding(mesh, P("data")))
    after, metrics = jax.jit(spread)(run, batch)
    same = {name: metrics[name] for name in alone[1]}
    pairs = zip(
        jax.tree.leaves((alone[0].params, alone[0].state, alone[1])), jax.tree.leaves((after.params, after.state, same))
    )
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


if __name__ == "__main__":
    rows = [("weights", kind, check) for kind in (AxisType.Auto, AxisType.Explicit) for check in (True, False)]
    rows += [("no weights", AxisType.Auto, True), ("custom objective", AxisType.Auto, True)]
    rows += [("scaled and averaged", AxisType.Auto, True)]
    rows += [("lbfgs", AxisType.Auto, True), ("lbfgs", AxisType.Auto, False)]
    print(
        json.dumps(
            {f"{case}, {kind.name}, check_vma={check}": difference(case, kind, check) for case, kind, check in rows}
        )
    )
