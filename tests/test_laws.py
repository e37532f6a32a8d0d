"""What is true of every layer and combinator in the catalog."""

import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

import fnn
from tests.catalog import CATALOG, Row

rows = pytest.mark.parametrize("row", CATALOG, ids=lambda row: row.name)


def made(row: Row) -> tuple[fnn.Layer, Any, Any]:
    net = row.make()
    return net, *net.init(jax.random.key(0), *row.xs)


def is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def score(net: fnn.Layer, state: Any, ids: tuple[Any, ...], train: bool) -> Any:
    """A smooth scalar of parameters and floating inputs."""

    def f(params: Any, xs: tuple[Any, ...]) -> Any:
        y, _ = net.apply(params, state, *(xs or ids), key=jax.random.key(7), train=train)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))

    return f


def differentiable(row: Row, *, train: bool) -> tuple[Any, Any, Any]:
    net, params, state = made(row)
    xs = tuple(jnp.asarray(x) for x in row.xs)
    floating = all(is_floating(x) for x in xs)
    f = score(net, state, () if floating else xs, train)
    return f, params, xs if floating else ()


@rows
def test_init_reads_only_shapes_and_dtypes(row: Row) -> None:
    net, params, state = made(row)
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), row.xs)
    chex.assert_trees_all_equal((params, state), net.init(jax.random.key(0), *specs))


@rows
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


@rows
def test_walking_the_children_gives_the_paths_of_params(row: Row) -> None:
    net, params, _ = made(row)

    def walk(layer: fnn.Layer, tree: Any) -> None:
        if layer.children:
            assert set(tree) <= {name for name, _ in layer.children}
            for name, child in layer.children:
                walk(child, tree.get(name, {}))

    walk(net, params)


@rows
def test_init_vmaps_over_keys(row: Row) -> None:
    net = row.make()
    keys = jax.random.split(jax.random.key(1), 2)
    many = jax.vmap(lambda key: net.init(key, *row.xs))(keys)
    for number in range(2):
        one = jax.tree.map(lambda leaf, number=number: leaf[number], many)
        chex.assert_trees_all_close(one, net.init(jax.random.clone(keys[number]), *row.xs), atol=1e-6)


@rows
@pytest.mark.parametrize("train", [False, True])
def test_state_keeps_its_structure_shapes_and_dtypes(row: Row, train: bool) -> None:
    net, params, state = made(row)
    _, new = net.apply(params, state, *row.xs, key=jax.random.key(1), train=train)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new)


@rows
@pytest.mark.parametrize("train", [False, True])
def test_jit_changes_nothing(row: Row, train: bool) -> None:
    net, params, state = made(row)
    run = lambda params, state, *xs: net.apply(params, state, *xs, key=jax.random.key(1), train=train)
    chex.assert_trees_all_close(run(params, state, *row.xs), jax.jit(run)(params, state, *row.xs), atol=1e-5)


@rows
def test_the_plan_tells_the_output_and_the_trees(row: Row) -> None:
    net, params, state = made(row)
    plan = net._plan(*row.xs)
    y, _ = net.apply(params, state, *row.xs)
    chex.assert_trees_all_equal_shapes_and_dtypes((plan.output, plan.params, plan.state), (y, params, state))


@rows
def test_inference_ignores_the_key(row: Row) -> None:
    net, params, state = made(row)
    without = net.apply(params, state, *row.xs)
    chex.assert_trees_all_equal(without, net.apply(params, state, *row.xs, key=jax.random.key(5)))


@rows
def test_forward_and_reverse_gradients_agree_with_finite_differences(row: Row) -> None:
    f, params, xs = differentiable(row, train=True)
    if row.smooth and jax.tree.leaves((params, xs)):
        check_grads(jax.jit(f), (params, xs), order=1, modes=("fwd", "rev"), atol=2e-2, rtol=2e-2, eps=1e-3)


@rows
def test_hessian_vector_products_agree_in_both_orders(row: Row) -> None:
    f, params, xs = differentiable(row, train=True)
    if not jax.tree.leaves((params, xs)):
        return
    flat, unflatten = ravel_pytree((params, xs))
    g = lambda flat: f(*unflatten(flat))
    v = jnp.cos(jnp.arange(flat.size, dtype=jnp.float32))
    forward_over_reverse = jax.jit(lambda flat: jax.jvp(jax.grad(g), (flat,), (v,))[1])(flat)
    reverse_over_forward = jax.jit(jax.grad(lambda flat: jax.jvp(g, (flat,), (v,))[1]))(flat)
    np.testing.assert_allclose(forward_over_reverse, reverse_over_forward, atol=2e-3, rtol=2e-3)


@rows
def test_the_result_has_the_dtype_of_the_input(row: Row) -> None:
    net, params, state = made(row)
    if not row.xs or not all(is_floating(x) for x in row.xs):
        return
    with jax.numpy_dtype_promotion("strict"):
        y, new = net.apply(
            params, state, *(jnp.asarray(x, jnp.bfloat16) for x in row.xs), key=jax.random.key(1), train=True
        )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(y)} == {"bfloat16"}
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new)


@rows
def test_a_batch_is_its_examples(row: Row) -> None:
    if not row.by_example:
        return
    net, params, state = made(row)
    together, _ = net.apply(params, state, *row.xs)
    for number in range(len(row.xs[0])):
        alone, _ = net.apply(params, state, *(x[number : number + 1] for x in row.xs))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, number=number: leaf[number : number + 1], together), alone, atol=1e-5
        )


@rows
def test_vmap_over_parameters_is_a_loop(row: Row) -> None:
    net = row.make()
    params, state = jax.vmap(lambda key: net.init(key, *row.xs))(jax.random.split(jax.random.key(1), 2))
    run = lambda params, state: net.apply(params, state, *row.xs)
    many = jax.vmap(run, axis_size=2)(params, state)
    for number in range(2):
        at = lambda tree, number=number: jax.tree.map(lambda leaf: leaf[number], tree)
        chex.assert_trees_all_close(at(many), run(at(params), at(state)), atol=1e-5)


@rows
def test_serial_and_wire_are_the_same_network(row: Row) -> None:
    alone = row.make()
    xs, key = row.xs, jax.random.key(0)
    in_serial = fnn.serial(child=alone)
    in_wire = fnn.wire(lambda f, *xs: f.child(*xs), child=alone)
    params, state = in_serial.init(key, *xs)
    chex.assert_trees_all_equal((params, state), in_wire.init(key, *xs))
    run = lambda net: net.apply(params, state, *xs, key=jax.random.key(1), train=True)
    chex.assert_trees_all_equal(run(in_serial), run(in_wire))


@rows
def test_an_unknown_keyword_is_an_error(row: Row) -> None:
    net, params, state = made(row)
    with pytest.raises(TypeError, match="unknown"):
        net.apply(params, state, *row.xs, unknown=1)
    constructor = getattr(fnn, row.name.split()[0], None)
    variadic = constructor and any(p.kind == p.VAR_KEYWORD for p in inspect.signature(constructor).parameters.values())
    if constructor is not None and not variadic:
        with pytest.raises(TypeError, match="unknown"):
            constructor(unknown=1)


@rows
def test_a_layer_unpacks_as_the_classic_pair_and_is_equal_to_itself_alone(row: Row) -> None:
    net = row.make()
    init, apply = net
    assert (init, apply) == (net.init, net.apply)
    assert net == net
    assert row.name == "plain function" or net != row.make()
    assert not callable(net)


@rows
def test_operations_carry_the_name_of_their_layer(row: Row) -> None:
    net = fnn.serial(outermost=row.make())
    params, state = net.init(jax.random.key(0), *row.xs)
    jaxpr = jax.make_jaxpr(lambda *xs: net.apply(params, state, *xs)[0])(*row.xs)
    for equation in jaxpr.eqns:
        assert "outermost" in str(equation.source_info.name_stack)


@rows
def test_parameters_of_another_network_are_an_error(row: Row) -> None:
    net, params, state = made(row)
    net = net if net.children else fnn.serial(net)  # a leaf alone cannot know which names it will read
    with pytest.raises(fnn.LayerError):
        net.apply({**params, "stranger": {"kernel": jnp.ones(2)}}, {**state, "stranger": jnp.ones(2)}, *row.xs)


@rows
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
