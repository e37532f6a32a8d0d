import pytest

from fnn.core.errors import LayerError, blame, within


def test_parents_prepend_their_names() -> None:
    with pytest.raises(LayerError) as caught, within("decoder"), within("block_3"), within("attention"):
        raise LayerError("too wide")
    assert caught.value.path == ("decoder", "block_3", "attention")
    assert str(caught.value) == "decoder/block_3/attention: too wide"


def test_a_mistake_in_a_layer_carries_layer_inputs_and_cause() -> None:
    with pytest.raises(LayerError) as caught, blame(lambda: "dense(8)", (1,)):
        raise TypeError("cannot multiply")
    assert isinstance(caught.value.__cause__, TypeError)
    assert str(caught.value) == "cannot multiply\n  layer: dense(8)\n  got:   int"


def test_the_innermost_layer_is_blamed() -> None:
    with pytest.raises(LayerError) as caught, blame(lambda: "outer", ()), within("inner"), blame(lambda: "inner", ()):
        raise ValueError("wrong")
    assert caught.value.layer == "inner"


def test_a_missing_parameter_says_which_trees_to_pass() -> None:
    message = "no 'kernel'; pass the trees that this network's init returned"
    with pytest.raises(LayerError, match=message), blame(lambda: "dense", ()):
        raise KeyError("kernel")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError), blame(lambda: "dense", ()):
        raise RuntimeError("out of memory")


def test_a_layer_error_is_a_value_error() -> None:
    assert issubclass(LayerError, ValueError)
