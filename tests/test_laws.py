"""What is true of every layer and combinator in the catalog.

The laws of one row run one after another, and share what they make of it: compiling is nearly all that they cost.
"""

import inspect
from functools import cache
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn
from tests.catalog import CATALOG, Row

ROWS = {row.name: row for row in CATALOG}


@pytest.fixture(scope="module", params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@cache
def _made(name: str) -> tuple[fnn.Layer, Any, Any]:
    net = ROWS[name].make()
    return net, *net.init(jax.random.key(0), *ROWS[name].xs)


def made(row: Row) -> tuple[fnn.Layer, Any, Any]:
    return _made(row.name)


@cache
def _many(name: str) -> Any:
    keys = jax.random.split(jax.random.key(1), 2)
    return jax.vmap(lambda key: _made(name)[0].init(key, *ROWS[name].xs))(keys)


def many(row: Row) -> Any:
    """Parameters and state from two keys, made by one ``vmap``."""
    return _many(row.name)


def part(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[number]), tree)


def is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


class Derivatives(NamedTuple):
    """Derivatives along a direction, each made in two ways; ``difference`` is that of values nearby."""

    difference: Any
    forward: Any
    reverse: Any
    forward_over_reverse: Any
    reverse_over_forward: Any


@cache
def _derivatives(name: str) -> Derivatives | None:
    row, (net, params, state) = ROWS[name], _made(name)
    xs = tuple(jnp.asarray(x) for x in row.xs)
    moving = len(xs) - row.still if all(is_floating(x) for x in xs) else 0
    flat, unflatten = ravel_pytree((params, xs[:moving]))
    if not flat.size:
        return None
    v = jnp.cos(jnp.arange(flat.size, dtype=jnp.float32))

    def f(flat: Any) -> Any:
        """A smooth scalar of parameters and floating inputs."""
        params, inputs = unflatten(flat)
        y, _ = net.apply(params, state, *inputs, *xs[moving:], key=jax.random.key(7), train=True)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))

    @jax.jit
    def derivatives(flat: Any) -> tuple[Any, ...]:
        slope = lambda flat: jax.jvp(f, (flat,), (v,))[1]
        gradient, forward_over_reverse = jax.jvp(jax.grad(f), (flat,), (v,))
        forward, reverse_over_forward = jax.value_and_grad(slope)(flat)
        return forward, jnp.vdot(gradient, v), forward_over_reverse, reverse_over_forward

    value, eps = jax.jit(f), 1e-3
    difference = (value(flat + eps / 2 * v) - value(flat - eps / 2 * v)) / eps
    return Derivatives(difference, *derivatives(flat))


def derivatives(row: Row) -> Derivatives | None:
    return _derivatives(row.name)


def test_init_reads_only_shapes_and_dtypes(row: Row) -> None:
    net, params, state = made(row)
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), row.xs)
    chex.assert_trees_all_equal((params, state), net.init(jax.random.key(0), *specs))


def test_trees_are_plain_dicts_of_float32_arrays_without_empty_entries(row: Row) -> None:
    _, params, state = made(row)

    def check(tree: Any, at_root: bool) -> None:
        if isinstance(tree, dict):
            assert tree or at_root
            for child in tree.values():
                check(child, False)
        else:
            assert isinstance(tree, jax.Array)
            assert tree.dtype == jnp.float32

    check(params, True)
    check(state, True)


def test_walking_the_children_gives_the_paths_of_params(row: Row) -> None:
    net, params, _ = made(row)

    def walk(layer: fnn.Layer, tree: Any) -> None:
        if layer.children:
            assert set(tree) <= {name for name, _ in layer.children}
            for name, child in layer.children:
                walk(child, tree.get(name, {}))

    walk(net, params)


def test_init_vmaps_over_keys(row: Row) -> None:
    for number, key in enumerate(jax.random.split(jax.random.key(1), 2)):
        chex.assert_trees_all_close(part(many(row), number), row.make().init(key, *row.xs), atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_state_keeps_its_structure_shapes_and_dtypes(row: Row, train: bool) -> None:
    net, params, state = made(row)
    apply = lambda *args: net.apply(*args, key=jax.random.key(1), train=train)
    _, new = jax.eval_shape(apply, params, state, *row.xs)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new)


@pytest.mark.parametrize("train", [False, True])
def test_jit_changes_nothing(row: Row, train: bool) -> None:
    net, params, state = made(row)
    run = lambda params, state, *xs: net.apply(params, state, *xs, key=jax.random.key(1), train=train)
    chex.assert_trees_all_close(run(params, state, *row.xs), jax.jit(run)(params, state, *row.xs), atol=1e-5)


def test_the_plan_tells_the_output_and_the_trees(row: Row) -> None:
    net, params, state = made(row)
    plan = net._plan(*row.xs)
    y, _ = net.apply(params, state, *row.xs)
    chex.assert_trees_all_equal_shapes_and_dtypes((plan.output, plan.params, plan.state), (y, params, state))


def test_inference_ignores_the_key(row: Row) -> None:
    net, params, state = made(row)
    without = net.apply(params, state, *row.xs)
    chex.assert_trees_all_equal(without, net.apply(params, state, *row.xs, key=jax.random.key(5)))


def test_forward_and_reverse_gradients_agree_with_finite_differences(row: Row) -> None:
    found = derivatives(row)
    if row.smooth and found:
        np.testing.assert_allclose(found.forward, found.difference, atol=2e-2, rtol=2e-2)
        np.testing.assert_allclose(found.reverse, found.difference, atol=2e-2, rtol=2e-2)


def test_hessian_vector_products_agree_in_both_orders(row: Row) -> None:
    found = derivatives(row)
    if found:
        np.testing.assert_allclose(found.forward_over_reverse, found.reverse_over_forward, atol=2e-3, rtol=2e-3)


def test_the_result_has_the_dtype_of_the_input(row: Row) -> None:
    net, params, state = made(row)
    if not row.xs or not all(is_floating(x) for x in row.xs):
        return
    run = jax.jit(lambda *args: net.apply(*args, key=jax.random.key(1), train=True))
    with jax.numpy_dtype_promotion("strict"):
        y, new = run(params, state, *(jnp.asarray(x, jnp.bfloat16) for x in row.xs))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(y)} == {"bfloat16"}
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new)


def test_a_batch_is_its_examples(row: Row) -> None:
    if not row.by_example:
        return
    net, params, state = made(row)
    together, _ = net.apply(params, state, *row.xs)
    for number in range(len(row.xs[0])):
        one = slice(number, number + 1)
        alone, _ = net.apply(params, state, *(x[one] for x in row.xs))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, one=one: np.asarray(leaf)[one], together), alone, atol=1e-5
        )


def test_a_batch_without_rows_gives_one_and_keeps_the_state_finite(row: Row) -> None:
    # The last batch of an empty selection: attention divided by zero.
    if not row.xs:
        pytest.skip("takes no input")
    net, params, state = made(row)
    nothing = tuple(x[:0] for x in row.xs)
    jax.eval_shape(lambda params: net.apply(params, state, *nothing), params)

    @jax.jit
    def run(params: Any) -> Any:
        def loss(params: Any) -> Any:
            y, new = net.apply(params, state, *nothing, key=jax.random.key(1), train=True)
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(y)), (y, new)

        return jax.grad(loss, has_aux=True)(params)

    grads, (y, new) = run(params)
    assert all(leaf.size == 0 for leaf in jax.tree.leaves(y))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((grads, new)))


def test_vmap_over_parameters_is_a_loop(row: Row) -> None:
    net, trees = made(row)[0], many(row)
    run = lambda params, state: net.apply(params, state, *row.xs)
    together = jax.jit(jax.vmap(run, axis_size=2))(*trees)
    for number in range(2):
        chex.assert_trees_all_close(part(together, number), run(*part(trees, number)), atol=1e-5)


def test_serial_and_wire_are_the_same_network(row: Row) -> None:
    alone = row.make()
    xs, key = row.xs, jax.random.key(0)
    in_serial = fnn.serial(child=alone)
    in_wire = fnn.wire(lambda f, *xs: f.child(*xs), child=alone)
    params, state = in_serial.init(key, *xs)
    chex.assert_trees_all_equal((params, state), in_wire.init(key, *xs))
    run = lambda net: net.apply(params, state, *xs, key=jax.random.key(1), train=True)
    chex.assert_trees_all_equal(run(in_serial), run(in_wire))


def test_an_unknown_keyword_is_an_error(row: Row) -> None:
    net, params, state = made(row)
    with pytest.raises(TypeError, match="unknown"):
        net.apply(params, state, *row.xs, unknown=1)
    constructor = getattr(fnn, row.name.split()[0], None)
    variadic = constructor and any(p.kind == p.VAR_KEYWORD for p in inspect.signature(constructor).parameters.values())
    if constructor is not None and not variadic:
        with pytest.raises(TypeError, match="unknown"):
            constructor(unknown=1)


def test_a_layer_unpacks_as_the_classic_pair_and_is_equal_to_itself_alone(row: Row) -> None:
    net = row.make()
    init, apply = net
    assert (init, apply) == (net.init, net.apply)
    assert net == net
    assert row.name == "plain function" or net != row.make()
    with pytest.raises(TypeError, match="holds no weights and is not called"):
        net(*row.xs)


def test_operations_carry_the_name_of_their_layer(row: Row) -> None:
    net = fnn.serial(outermost=row.make())
    params, state = net.init(jax.random.key(0), *row.xs)
    jaxpr = jax.make_jaxpr(lambda *xs: net.apply(params, state, *xs)[0])(*row.xs)
    for equation in jaxpr.eqns:
        assert "outermost" in str(equation.source_info.name_stack)


def test_parameters_of_another_network_are_an_error(row: Row) -> None:
    net, params, state = made(row)
    net = net if net.children else fnn.serial(net)  # a leaf alone cannot know which names it will read
    with pytest.raises(fnn.LayerError):
        net.apply({**params, "stranger": {"kernel": jnp.ones(2)}}, {**state, "stranger": jnp.ones(2)}, *row.xs)


def test_a_stateless_network_is_a_function_of_parameters(row: Row) -> None:
    net, params, state = made(row)
    init, f = fnn.stateless(net)
    if state:
        with pytest.raises(fnn.LayerError, match="has state"):
            init(jax.random.key(0), *row.xs)
        f = fnn.bind(net, state)
    else:
        chex.assert_trees_all_equal(init(jax.random.key(0), *row.xs), params)
    chex.assert_trees_all_equal(f(params, *row.xs), net.apply(params, state, *row.xs)[0])
