import jax
import pytest

from benchmarks import convolutions
from benchmarks.convolutions import GRID, PRODUCTS, SIDES, Shape


def test_the_grid_has_what_networks_have() -> None:
    assert len(set(GRID)) == len(GRID) == 48
    assert len({str(shape) for shape in GRID}) == len(GRID)
    assert {shape.window for shape in GRID} == {1, 3, 5, 7}
    assert {shape.batch for shape in GRID} == {1, 8, 32, 128}
    assert {shape.rank for shape in GRID} == {1, 2}
    assert all(shape.channels % shape.groups == shape.features % shape.groups == 0 for shape in GRID)
    assert 1 < len(convolutions.quick(GRID)) < 12


@pytest.mark.parametrize("side", SIDES)
def test_products_have_the_shapes_of_output_input_and_kernel(side: str) -> None:
    shape = Shape(2, 9, 4, 8, 3, stride=2, padding="VALID", dilation=2, groups=2)
    x, kernel, g = (jax.ShapeDtypeStruct(sizes, "float32") for sizes in ((2, 9, 9, 4), (3, 3, 2, 8), (2, 3, 3, 8)))
    made = convolutions.functions(side, shape)
    found = [jax.eval_shape(made[product], x, kernel, g).shape for product in PRODUCTS]
    assert found == [g.shape, x.shape, kernel.shape]


def test_every_product_is_timed_on_both_sides() -> None:
    found = convolutions.measure(Shape(1, 4, 1, 2, 3, rank=1), "float32", calls=7)
    assert [len(found[product][side]) for product in PRODUCTS for side in SIDES] == [7] * 6


def test_the_summary_has_the_geometric_mean_and_the_worst() -> None:
    found = {
        "a": {product: {"fnn": [1.0], "lax": [4.0]} for product in PRODUCTS},
        "b": {product: {"fnn": [2.0, 2.0, 9.0], "lax": [2.0]} for product in PRODUCTS},
    }
    assert "| output | 2.00 | 1.00 | b (output) |" in convolutions.summary(found)
    assert "| all | 2.00 | 1.00 | b (output) |" in convolutions.summary(found)
    assert convolutions.row("a", found["a"]) == ["a", *["1 s", "4.00"] * 3]


@pytest.mark.parametrize("wrong", [["--calls", "6"], ["--cores", "0"], ["--dtype", "int8"]])
def test_wrong_arguments_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convolutions.parse(wrong)
    assert "error" in capsys.readouterr().err
