"""Which configurations a study tries."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.studies.configurations import Space, as_space as as_any_space


def as_space(space: Any) -> Any:
    return as_any_space(space)


SPACE = {"rate": fnn.uniform(0, 1), "decay": fnn.log_uniform(1e-6, 1e-2)}


def test_a_configuration_does_not_depend_on_how_many_there_are():
    assert as_space(SPACE).draw([1], 5) == as_space(SPACE).draw([1], 50)[:5]
    assert fnn.sobol(SPACE).draw([1], 4) == fnn.sobol(SPACE).draw([1], 16)[:4]


def test_another_hyperparameter_changes_none_of_the_others():
    more = as_space({"width": fnn.choice([1, 2], static=True), **SPACE}).draw([1], 5)
    assert [row["rate"] for row in more] == [row["rate"] for row in as_space(SPACE).draw([1], 5)]


def test_seeds_give_other_configurations():
    assert as_space(SPACE).draw([1], 2) != as_space(SPACE).draw([2], 2)


def test_sobol_points_fill_every_cell():
    points = [(row["rate"], np.log10(row["decay"])) for row in fnn.sobol(SPACE).draw([3], 16)]
    cells = {(int(4 * rate), int(decay + 6)) for rate, decay in points}
    assert len(cells) == 16


def test_a_grid_has_every_combination():
    space = fnn.grid({"a": [1.0, 2.0], "f": [jnp.tanh, jnp.sin]})
    assert len(space.rows or ()) == 4
    assert space.static == ("f",)


def test_a_list_is_a_table():
    space = as_space([{"a": 0.1, "f": "x"}, {"a": 0.1, "f": "y"}])
    assert space.static == ("f",)
    assert space.draw([], 1) == [{"a": 0.1, "f": "x"}]
    assert space.dimensions["a"].settings["values"] == (0.1,)


def test_no_space_is_one_empty_configuration():
    assert as_space(None).draw([], 1) == [{}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_space({}), "the space is empty"),
        (lambda: as_space({"a": 0.1}), r"fnn.choice\(\[0.1\]\)"),
        (lambda: fnn.grid({"a": []}), "a of the grid has no values"),
        (lambda: fnn.grid({"a": fnn.uniform(0, 1)}), "write them out"),
        (lambda: fnn.table([]), "no row"),
        (lambda: fnn.table([{"a": 1}, {"b": 1}]), "row 1 of the table"),
        (lambda: fnn.table([{"a": 1}], static=["b"]), "not in the table"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_space_of_another_type_is_refused():
    with pytest.raises(TypeError, match="dict of dimensions"):
        as_space(3)
    assert isinstance(as_space(Space(SPACE)), Space)
