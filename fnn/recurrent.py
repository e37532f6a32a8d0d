"""Any cell over time: alone, both ways, and the usual cells by name."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnn.combinators import parallel
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.core.specs import Spec, same, show, specs
from fnn.layers.cells import Cell, conv_lstm_cell, gru_cell, lstm_cell, rnn_cell
from fnn.ops.checks import check_floating
from fnn.ops.recur import Recurrence, recur
from fnn.ops.sequences import valid_lengths


def recurrent(
    cell: Cell,
    *,
    reverse: bool = False,
    carry: bool = False,
    cache: bool = False,
    unroll: int = 1,
) -> Layer:
    """Run a cell over time.

    The same parameters serve all three forms. ``carry=True`` takes and gives the carry as a value. ``cache=True`` keeps
    it in state, so that a sequence may come in pieces: its state comes from `fnn.init_state`.

    Args:
        cell: What to run, such as `lstm_cell`, or a `Cell` of your own.
        reverse: Whether to run from the last step to the first. y keeps the order of x.
        carry: Whether the layer maps ``(x, carry)`` to ``(y, carry)``.
        cache: Whether the carry is kept in state from call to call.
        unroll: How many steps the compiled loop holds: longer to compile, at times faster.

    Returns:
        A layer; without ``cache`` it has no state.

        - x: ``(batch, time, *features)``, floating; with ``carry`` then the carry, such as ``cell.start`` makes it
        - lengths: ``(batch,)`` integers, the last input, or left out. Steps from there on change nothing, whatever x
          holds there, NaN too: their y is 0 and the carry stays as it was; in reverse, the run begins at the last step
          of each sequence. A length that is negative or more than time gives NaN for its example where it is traced,
          and an error where it is not.
        - y: ``(batch, time, *y of the cell)``; with ``carry``, the pair of it and the last carry
        - params: those of the cell
        - state: with ``cache`` ``cache/0``, ``cache/1``, ..., the arrays of the carry

    Raises:
        ValueError: when both ``carry`` and ``cache``, or ``cache`` and ``reverse``.
        LayerError: at init, when x has no time axis, the carry does not fit the cell, or a step changes the shapes of
            its carry.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x, lengths = jnp.ones((2, 5, 3)), jnp.array([5, 2])
        >>> net = fnn.recurrent(fnn.gru_cell(4))
        >>> params, state = net.init(jax.random.key(0), x, lengths)
        >>> y, _ = net.apply(params, state, x, lengths)
        >>> y.shape, bool((y[1, 2:] == 0).all())
        ((2, 5, 4), True)
    """
    if carry and cache:
        raise ValueError("carry=True gives the carry as a value, cache=True keeps it in state; choose one")
    if cache and reverse:
        raise ValueError("a sequence that comes in pieces cannot be run in reverse; drop cache=True or reverse=True")
    recurrence = Recurrence(cell.step, cell.hidden, cell.mix, cell.apart, reverse, unroll)

    def run(params: Any, x: jax.Array, first: Any, lengths: jax.Array | None) -> tuple[jax.Array, Any]:
        batch, time = x.shape[:2]
        valid = fits = None
        if lengths is not None:
            fits = valid_lengths(lengths, batch, time)
            valid = jnp.arange(time)[:, None] < lengths
        steps = jnp.swapaxes(x, 0, 1)
        if valid is not None:  # padding may hold NaN, and a gradient of 0 times NaN is NaN
            steps = jnp.where(valid.reshape(valid.shape + (1,) * (steps.ndim - 2)), steps, 0)
        if cell.project is not None:
            us = cell.project(params, steps.reshape(time * batch, *x.shape[2:]))
            steps = jax.tree.map(lambda u: u.reshape(time, batch, *u.shape[1:]), us)
        last, ys = recur(recurrence, params, first, steps, valid)
        y = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), ys)
        if fits is None:
            return y, last
        spoil = lambda leaf: jnp.where(fits.reshape(fits.shape + (1,) * (leaf.ndim - 1)), leaf, jnp.nan)
        return jax.tree.map(spoil, (y, last))

    def init(key: jax.Array, x: Any, *more: Any) -> dict[str, Any]:
        if len(x.shape) < 3:
            raise ValueError(
                f"x has shape {x.shape}, wanted (batch, time, *features); add the missing axes, such as x[..., None]"
            )
        check_floating(x)
        return cell.init(key, Spec(x.shape[:1] + x.shape[2:], x.dtype))

    def begin(x: Any) -> Any:
        return cell.start(Spec(x.shape[:1] + x.shape[2:], x.dtype))

    def plain(params: Any, x: jax.Array, *lengths: jax.Array) -> Any:
        return run(params, x, begin(x), _only(lengths))[0]

    def carried(params: Any, x: jax.Array, first: Any, *lengths: jax.Array) -> Any:
        wanted = specs(begin(x))
        if not same(specs(first), wanted):
            raise ValueError(f"the carry is {show(first)}, wanted {show(wanted)}; start from cell.start(x[:, 0])")
        return run(params, x, first, _only(lengths))

    def init_cached(key: jax.Array, x: Any, *more: Any) -> Any:
        return init(key, x), {"cache": _numbered(begin(x))}

    def cached(params: Any, state: Any, x: jax.Array, *lengths: jax.Array) -> Any:
        structure, kept = jax.tree.structure(begin(x)), state["cache"]
        first = structure.unflatten([kept[str(number)] for number in range(structure.num_leaves)])
        y, last = run(params, x, first, _only(lengths))
        return y, {"cache": _numbered(last)}

    if cache:
        return layer(init_cached, cached, stateful=True, name=cell.name)
    return layer(init, carried if carry else plain, name=cell.name)


def rnn(
    features: int, *, reverse: bool = False, carry: bool = False, cache: bool = False, unroll: int = 1, **cell: Any
) -> Layer:
    """``recurrent(rnn_cell(features, **cell), ...)``: the simplest recurrent network.

    Args:
        features: Size of the hidden state.
        reverse: As in `recurrent`, as are the next three.
        carry: Whether the layer maps ``(x, carry)`` to ``(y, carry)``.
        cache: Whether the carry is kept in state.
        unroll: How many steps the compiled loop holds.
        **cell: Options of `rnn_cell`.

    Returns:
        A layer, as `recurrent` makes it.

        - x: ``(batch, time, features_in)``; y: ``(batch, time, features)``; params: those of `rnn_cell`

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.rnn(4, activation=jax.nn.relu)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> net.apply(params, state, jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 4)
    """
    return recurrent(rnn_cell(features, **cell), reverse=reverse, carry=carry, cache=cache, unroll=unroll)


def lstm(
    features: int, *, reverse: bool = False, carry: bool = False, cache: bool = False, unroll: int = 1, **cell: Any
) -> Layer:
    """``recurrent(lstm_cell(features, **cell), ...)``: long short-term memory.

    Args:
        features: Size of the hidden state.
        reverse: As in `recurrent`, as are the next three.
        carry: Whether the layer maps ``(x, carry)`` to ``(y, carry)``.
        cache: Whether the carry is kept in state.
        unroll: How many steps the compiled loop holds.
        **cell: Options of `lstm_cell`.

    Returns:
        A layer, as `recurrent` makes it.

        - x: ``(batch, time, features_in)``; y: ``(batch, time, features)``; params: those of `lstm_cell`

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.lstm(4)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> net.apply(params, state, jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 4)
    """
    return recurrent(lstm_cell(features, **cell), reverse=reverse, carry=carry, cache=cache, unroll=unroll)


def gru(
    features: int, *, reverse: bool = False, carry: bool = False, cache: bool = False, unroll: int = 1, **cell: Any
) -> Layer:
    """``recurrent(gru_cell(features, **cell), ...)``: gated recurrent units.

    Args:
        features: Size of the hidden state.
        reverse: As in `recurrent`, as are the next three.
        carry: Whether the layer maps ``(x, carry)`` to ``(y, carry)``.
        cache: Whether the carry is kept in state.
        unroll: How many steps the compiled loop holds.
        **cell: Options of `gru_cell`.

    Returns:
        A layer, as `recurrent` makes it.

        - x: ``(batch, time, features_in)``; y: ``(batch, time, features)``; params: those of `gru_cell`

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.gru(4)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> net.apply(params, state, jnp.ones((2, 5, 3)))[0].shape
        (2, 5, 4)
    """
    return recurrent(gru_cell(features, **cell), reverse=reverse, carry=carry, cache=cache, unroll=unroll)


def conv_lstm(
    features: int,
    window: Sequence[int],
    *,
    reverse: bool = False,
    carry: bool = False,
    cache: bool = False,
    unroll: int = 1,
    **cell: Any,
) -> Layer:
    """``recurrent(conv_lstm_cell(features, window, **cell), ...)``: an LSTM over images.

    Args:
        features: Channels of the hidden state.
        window: Extent of the kernels along each spatial axis.
        reverse: As in `recurrent`, as are the next three.
        carry: Whether the layer maps ``(x, carry)`` to ``(y, carry)``.
        cache: Whether the carry is kept in state.
        unroll: How many steps the compiled loop holds.
        **cell: Options of `conv_lstm_cell`.

    Returns:
        A layer, as `recurrent` makes it.

        - x: ``(batch, time, *space, channels)``; y: ``(batch, time, *space, features)``
        - params: those of `conv_lstm_cell`

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.conv_lstm(4, (3, 3))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 5, 6, 6, 3)))
        >>> net.apply(params, state, jnp.ones((2, 5, 6, 6, 3)))[0].shape
        (2, 5, 6, 6, 4)
    """
    return recurrent(conv_lstm_cell(features, window, **cell), reverse=reverse, carry=carry, cache=cache, unroll=unroll)


def bidirectional(cell: Cell, *, join: Callable[..., Any] | None = None) -> Layer:
    """Run a cell from both ends, each way with parameters of its own.

    Args:
        cell: What to run, such as `lstm_cell`.
        join: Combines the two outputs, such as ``jnp.add``. None: they are put side by side on the last axis.

    Returns:
        A layer without state, with the children ``forward`` and ``backward``.

        - x: ``(batch, time, *features)``, then ``lengths (batch,)``, or not, as in `recurrent`
        - y: ``(batch, time, 2 * features)`` of the cell, or what ``join`` makes of the two
        - params: ``{"forward": tree, "backward": tree}``

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.bidirectional(fnn.lstm_cell(4))
        >>> x, lengths = jnp.ones((2, 5, 3)), jnp.array([5, 3])
        >>> params, state = net.init(jax.random.key(0), x, lengths)
        >>> net.apply(params, state, x, lengths)[0].shape
        (2, 5, 8)

    References:
        Schuster and Paliwal, Bidirectional recurrent neural networks, 1997, IEEE Transactions on Signal Processing 45.
    """
    side_by_side = lambda forward, backward: jnp.concatenate([forward, backward], -1)
    return parallel(forward=recurrent(cell), backward=recurrent(cell, reverse=True), join=join or side_by_side)


def _numbered(carry: Any) -> dict[str, jax.Array]:
    """The arrays of a carry as a dict, since state is made of dicts alone."""
    return {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(carry))}


def _only(lengths: tuple[Any, ...]) -> Any:
    if len(lengths) > 1:
        raise ValueError(f"takes x and lengths, got {1 + len(lengths)} inputs; a carry is taken with carry=True")
    return lengths[0] if lengths else None
