"""What a traced program computes: equal for equal programs, and another one for whatever changes the result."""

import functools
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.core.programs import content
from tests.compilations import compilations

X = jnp.arange(3.0)


def of(function: Callable[..., Any], *args: Any) -> Any:
    return content(jax.make_jaxpr(function)(*(args or (X,))))


def scaled(scale: Any) -> Callable[..., Any]:
    return lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y * scale, x)


def relu_of(name: str) -> Callable[..., Any]:
    def function(x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.nn.silu(x))

    function.__name__ = name
    return jax.jit(function)


def called_back(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: jax.pure_callback(function, x, x)


def policy() -> Any:
    return jax.checkpoint_policies.save_only_these_names("a")


@pytest.mark.parametrize(
    "make",
    [
        lambda: scaled(2.0),
        lambda: scaled(np.arange(3.0)),
        lambda: jax.grad(lambda x: jax.nn.gelu(x).sum()),
        lambda: jax.grad(lambda x: jax.checkpoint(jnp.sin, policy=policy())(x).sum()),
        lambda: lambda x: jax.random.uniform(jax.random.key(1), x.shape),
        lambda: called_back(np.sin),
    ],
)
def test_the_same_program_traced_twice_has_the_same_content(make: Callable[[], Any]) -> None:
    assert of(make()) == of(make())
    assert of(make()).fingerprint() == of(make()).fingerprint()


def test_names_do_not_count() -> None:
    assert of(relu_of("one")) == of(relu_of("two"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (scaled(2.0), scaled(3.0)),
        (scaled(np.arange(3.0)), scaled(np.array([0.0, 1.0, 3.0]))),
        (lambda x: x + x[::-1], lambda x: x - x[::-1]),
        (lambda x: x[0] - x[1], lambda x: x[1] - x[0]),
        (lambda x: (x, 2 * x), lambda x: (2 * x, x)),
        (lambda x: jnp.where(x > 0, x, 1.0), lambda x: jnp.where(x > 0, x, -1.0)),
        (lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), lambda x: jax.lax.cond(x[0] > 0, jnp.cos, jnp.sin, x)),
        (lambda x: x @ x, functools.partial(jnp.dot, X, precision="highest")),
        (lambda _: jax.random.bits(jax.random.key(1)), lambda _: jax.random.bits(jax.random.key(1, impl="rbg"))),
        (lambda _: jax.random.bits(jax.random.key(1)), lambda _: jax.random.bits(jax.random.key(2))),
        (called_back(lambda x: x), called_back(lambda x: x)),
    ],
)  # fmt: skip
def test_another_program_has_another_content(a: Callable[..., Any], b: Callable[..., Any]) -> None:
    assert of(a) != of(b)


def test_shapes_and_types_count() -> None:
    assert len({of(jnp.sin, x) for x in (X, X[:2], X.astype(jnp.float16), 1.0, jnp.float32(1))}) == 5


def gpt(width: int = 8, cache: int = 12) -> fnn.Layer:
    return fnn.language_model(
        11, width, fnn.encoder(1, 2, 16, causal=True, cache=cache), positions=fnn.learned_positions(20, cache=True)
    )


PROMPT = jnp.array([[1, 2, 3], [4, 5, 6]])


def params_of(net: fnn.Layer) -> Any:
    return net.init(jax.random.key(0), PROMPT)[0]


USES: dict[str, Callable[[fnn.Layer, Any], Any]] = {
    "generate": lambda net, params: fnn.generate(net, params, PROMPT, 4).ids,
    "stream": lambda net, params: np.stack(list(fnn.stream(net, params, PROMPT, 4)), 1),
    "beam_search": lambda net, params: fnn.beam_search(net, params, PROMPT, 4, end=0, beams=2).scores,
    "init_state": lambda net, _: jax.tree.leaves(fnn.init_state(net, PROMPT)),
}


@pytest.mark.parametrize("use", USES)
def test_a_network_that_is_built_in_each_call_compiles_nothing_again(use: str) -> None:
    """Programs were kept by the network's identity: one that was built inline was compiled in every call."""
    params = params_of(gpt())
    first = USES[use](gpt(), params)
    with compilations() as found:
        second = USES[use](gpt(), params)
    assert not found
    chex.assert_trees_all_equal(first, second)


def test_another_network_of_the_same_shapes_is_another_program() -> None:
    def net(scale: float, cache: bool = True) -> fnn.Layer:
        return fnn.serial(fnn.embedding(11, 8), lambda x: scale * x, fnn.lstm(8, cache=cache), fnn.dense(11))

    params = params_of(net(1.0))
    for scale in (1.0, -50.0):
        ids = fnn.generate(net(scale), params, PROMPT, 1).ids
        np.testing.assert_array_equal(ids[:, -1], net(scale, False).apply(params, {}, PROMPT)[0][:, -1].argmax(-1))


def test_names_of_results_count() -> None:
    """A jaxpr has no names of outputs: the state of one counter came back under the name of another."""

    def counter(name: str) -> fnn.Layer:
        init = lambda key, x: ({}, {name: jnp.zeros(())})
        return fnn.layer(init, lambda params, state, x: (x, state), stateful=True)

    assert [list(fnn.init_state(counter(name), X)) for name in ("a", "b")] == [["a"], ["b"]]


def test_a_program_of_a_mesh_is_not_used_on_another() -> None:
    """Two meshes of one shape are the same to a trace: NumPy arrays went to the devices of the first mesh."""
    program = """
import fnn, jax, numpy as np
from fnn.core.programs import call_compiled
net, double, x = fnn.dense(1), lambda net, x: 2 * x, np.ones(4, np.float32)
for devices in np.split(np.array(jax.devices()), 2):
    with jax.set_mesh(jax.sharding.Mesh(devices, ("data",))):
        assert call_compiled(net, double, x).devices() == set(devices)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.parametrize("use", USES)
def test_no_network_is_kept_alive(use: str) -> None:
    """Each network was a static argument of a compiled function, which kept it for ever."""
    net = gpt()
    USES[use](net, params_of(net))
    held = weakref.ref(net)
    del net
    gc.collect()
    assert held() is None


def test_generation_is_traced_like_any_function() -> None:
    net, params = gpt(), params_of(gpt())
    plain = fnn.generate(net, params, PROMPT, 4).ids
    np.testing.assert_array_equal(jax.jit(lambda p: fnn.generate(net, p, PROMPT, 4).ids)(params), plain)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    ids = jax.vmap(lambda p: fnn.generate(net, p, PROMPT, 4).ids)(many)
    np.testing.assert_array_equal(ids[0], plain)
    chex.assert_trees_all_equal(jax.jit(lambda: fnn.init_state(net, PROMPT))(), fnn.init_state(net, PROMPT))
    with jax.disable_jit():
        np.testing.assert_array_equal(fnn.generate(net, params, PROMPT, 4).ids, plain)
