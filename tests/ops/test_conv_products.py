from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from fnn.ops.conv_plain import Geometry, plain_product
from fnn.ops.conv_products import conv_product
from fnn.ops.convolution import convolve

GEOMETRY = Geometry((5, 6), (3, 2), (1, 2), ((1, 1), (1, 0)), (1, 1), 1)
GROUPED = Geometry((6,), (3,), (2,), ((1, 1),), (1,), 2)
KINDS = ("y", "x", "kernel")


def arrays(geometry: Geometry, batch: int = 2, channels: int = 4, features: int = 6) -> dict[str, jax.Array]:
    shapes = {
        "x": (batch, *geometry.sizes, channels),
        "y": (batch, *geometry.outputs, features),
        "kernel": (*geometry.window, channels // geometry.groups, features),
    }
    return {name: jax.random.normal(jax.random.key(seed), shape) for seed, (name, shape) in enumerate(shapes.items())}


def operands(of: str, geometry: Geometry, **sizes: int) -> tuple[jax.Array, jax.Array]:
    given = arrays(geometry, **sizes)
    a, b = (given[name] for name in ("x", "y", "kernel") if name != of)
    return (a, b) if of != "y" else (given["x"], given["kernel"])


def fast(of: str, geometry: Geometry) -> Any:
    return jax.jit(lambda a, b: conv_product(of, a, b, geometry))


def plain(of: str, geometry: Geometry) -> Any:
    return jax.jit(lambda a, b: plain_product(of, a, b, geometry))


def close(a: Any, b: Any, tolerance: float = 1e-4) -> None:
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.shape == right.shape
        assert left.dtype == right.dtype
        np.testing.assert_allclose(
            np.complex128(left), np.complex128(right), atol=tolerance * max(1.0, np.abs(right).max())
        )


both_geometries = pytest.mark.parametrize("geometry", [GEOMETRY, GROUPED], ids=["images", "grouped sequences"])
all_kinds = pytest.mark.parametrize("of", KINDS)


@both_geometries
def test_the_three_products_are_gradients_of_one_another(geometry: Geometry) -> None:
    given = arrays(geometry)
    paired = [float(jnp.vdot(given[of], fast(of, geometry)(*operands(of, geometry)))) for of in KINDS]
    np.testing.assert_allclose(paired, paired[0], rtol=1e-4)


@both_geometries
@all_kinds
def test_derivatives_of_any_order_are_those_of_the_plain_product(of: str, geometry: Geometry) -> None:
    a, b = operands(of, geometry)
    a_dot, b_dot = (jax.random.normal(jax.random.key(7), array.shape) for array in (a, b))

    def derivatives(product: Callable[..., jax.Array]) -> Any:
        loss = lambda a, b: jnp.sum(jnp.sin(product(a, b)))
        grads = jax.grad(loss, (0, 1))
        hessian_vector = lambda a, b: jax.jvp(grads, (a, b), (a_dot, b_dot))[1]
        backward = lambda a, b: jax.grad(lambda a, b: jnp.vdot(grads(a, b)[0], a_dot), (0, 1))(a, b)
        third = lambda a, b: jax.jvp(hessian_vector, (a, b), (a_dot, b_dot))[1]
        return jax.jit(lambda a, b: (product(a, b), grads(a, b), hessian_vector(a, b), backward(a, b), third(a, b)))(
            a, b
        )

    close(derivatives(fast(of, geometry)), derivatives(plain(of, geometry)), 2e-4)


def test_forward_and_reverse_jacobians_agree() -> None:
    x, kernel = operands("y", GROUPED, batch=1, channels=2, features=2)
    f = fast("y", GROUPED)
    close(jax.jacfwd(f, 1)(x, kernel), jax.jacrev(f, 1)(x, kernel))


@both_geometries
@all_kinds
def test_an_axis_under_vmap_may_be_anywhere_in_either_argument_or_both(of: str, geometry: Geometry) -> None:
    a, b = operands(of, geometry)
    stacked = [jnp.stack([array, 2 * array, array - 1]) for array in (a, b)]
    for which in ((True, False), (False, True), (True, True)):
        for axis in (0, -1):
            given = [
                jnp.moveaxis(many, 0, axis) if mapped else one for mapped, many, one in zip(which, stacked, (a, b))
            ]
            axes = tuple(axis if mapped else None for mapped in which)
            wanted = [
                plain(of, geometry)(*(many[i] if mapped else one for mapped, many, one in zip(which, stacked, (a, b))))
                for i in range(3)
            ]
            close(jax.vmap(fast(of, geometry), axes)(*given), jnp.stack(wanted))


def test_vmap_nests() -> None:
    a, b = operands("y", GEOMETRY)
    many_a = a * jnp.arange(1.0, 4.0).reshape(3, *(1,) * a.ndim)
    many_b = b * jnp.arange(1.0, 3.0).reshape(2, *(1,) * b.ndim)
    f = fast("y", GEOMETRY)
    every = jax.vmap(jax.vmap(f, (0, None)), (None, 0))(many_a, many_b)
    close(every, jnp.stack([jnp.stack([f(one_a, one_b) for one_a in many_a]) for one_b in many_b]))
    paired = jax.vmap(jax.vmap(f), (None, 0))(many_a[:2], jnp.stack([many_b, 3 * many_b]))
    close(paired, jnp.stack([jnp.stack([f(many_a[i], scale * many_b[i]) for i in range(2)]) for scale in (1, 3)]))


def test_gradients_under_vmap_over_networks_are_those_of_each_network() -> None:
    x, kernel = operands("y", GEOMETRY)
    kernels = jnp.stack([kernel, -kernel, kernel + 1])
    loss = lambda kernel, x: jnp.sum(conv_product("y", x, kernel, GEOMETRY) ** 3)
    grads = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)))(kernels, x)
    for i, one in enumerate(kernels):
        close([grad[i] for grad in grads], jax.grad(loss, (0, 1))(one, x))


def test_loops_and_rematerialisation_change_nothing() -> None:
    x, kernel = operands("y", Geometry((5, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1), channels=3, features=3)

    def deep(layer: Callable[..., jax.Array], unrolled: bool) -> Callable[..., jax.Array]:
        def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
            step = lambda x, _: (jnp.tanh(layer(x, kernel)), None)
            y = step(step(x, None)[0], None)[0] if unrolled else jax.lax.scan(step, x, length=2)[0]
            return jnp.sum(y**2)

        return jax.jit(jax.grad(loss, (0, 1)))

    expected = deep(convolve, unrolled=True)(kernel, x)
    close(deep(convolve, unrolled=False)(kernel, x), expected)
    close(deep(jax.checkpoint(convolve), unrolled=False)(kernel, x), expected)


@all_kinds
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes_are_summed_in_float32_and_stay_narrow(of: str, dtype: Any) -> None:
    a, b = (array.astype(dtype) for array in operands(of, GEOMETRY))
    y = fast(of, GEOMETRY)(a, b)
    assert y.dtype == dtype
    exact = plain(of, GEOMETRY)(a.astype(jnp.float32), b.astype(jnp.float32))
    close(y.astype(jnp.float32), exact, float(jnp.finfo(dtype).eps))


def test_complex_products_are_not_conjugated() -> None:
    a, b = (array + 1j * array[::-1] for array in operands("y", GEOMETRY))
    close(fast("y", GEOMETRY)(a, b), plain("y", GEOMETRY)(a, b))
    ct = jnp.ones((2, *GEOMETRY.outputs, 6), a.dtype)
    close(jax.vjp(fast("y", GEOMETRY), a, b)[1](ct), jax.vjp(plain("y", GEOMETRY), a, b)[1](ct))


def test_each_platform_gets_its_own_program() -> None:
    images = Geometry((16, 16), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    specs = [jax.ShapeDtypeStruct((32, 16, 16, channels), jnp.float32) for channels in (4, 6)]
    program = lambda *platforms: jax.export.export(fast("kernel", images), platforms=platforms)(*specs)
    assert program("cpu", "cuda", "tpu").platforms == ("cpu", "cuda", "tpu")
    assert "stablehlo.while" in program("cpu").mlir_module()  # over chunks of the batch
    assert "stablehlo.while" not in program("cuda").mlir_module()
    assert program("cuda").mlir_module().count("stablehlo.convolution") == 1


def test_a_program_for_any_batch_can_be_exported() -> None:
    (batch,) = jax.export.symbolic_shape("batch")
    a, b = operands("kernel", GEOMETRY, batch=5)
    specs = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in (a, b)]
    program = jax.export.export(fast("kernel", GEOMETRY))(*specs)
    close(program.call(a, b), plain("kernel", GEOMETRY)(a, b))


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_shards_and_explicit_shardings_are_taken(kind: Any) -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(kind,))
    x, kernel = operands("y", GEOMETRY)
    loss = lambda kernel, x: jnp.sum(conv_product("y", x, kernel, GEOMETRY) ** 2)
    expected = jax.grad(loss)(kernel, x)
    x = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("data")))
    kernel = jax.device_put(kernel, jax.NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        if kind == jax.sharding.AxisType.Explicit:
            close(jax.jit(jax.grad(loss))(kernel, x), expected)
        else:
            specs = (PartitionSpec(), PartitionSpec("data"))
            total = lambda kernel, x: jax.lax.psum(loss(kernel, x), "data")
            sharded = jax.shard_map(total, in_specs=specs, out_specs=PartitionSpec())
            close(jax.jit(jax.grad(sharded))(kernel, x), expected)


def test_every_pair_of_arguments_may_be_eager() -> None:
    for of in KINDS:
        a, b = operands(of, GROUPED)
        close(conv_product(of, a, b, GROUPED), plain(of, GROUPED)(a, b))


def test_shapes_follow_from_the_other_two() -> None:
    given = arrays(GEOMETRY)
    for of in KINDS:
        pair = operands(of, GEOMETRY)
        assert GEOMETRY.shape_of(of, pair[0].shape, pair[1].shape) == given[of].shape


def test_only_derivatives_are_told_that_they_are_derivatives() -> None:
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 3))
    value = lambda x, kernel: jnp.sum(convolve(x, kernel))
    told = lambda function: str(jax.make_jaxpr(function)(x, kernel)).count("derived=True")
    untold = lambda function: str(jax.make_jaxpr(function)(x, kernel)).count("derived=False")
    assert (told(value), untold(value)) == (0, 1)
    for function, products in ((jax.value_and_grad(value, (0, 1)), 3), (jax.jit(jax.grad(jax.jit(value), 1)), 1)):
        assert told(function) >= products
        assert untold(function) == 0
