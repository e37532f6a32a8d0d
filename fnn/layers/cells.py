"""Cells: one step of a recurrent network. `fnn.recurrent` runs them over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.keys import fold
from fnn.ops.checks import check_positive_int, check_shapes
from fnn.ops.convolution import convolve
from fnn.ops.linear import linear

Init = Callable[..., jax.Array]


def mix(params: dict[str, Any], h: jax.Array) -> jax.Array:
    """``h @ recurrent_kernel``, and the bias where there is one."""
    return linear(h, params["recurrent_kernel"], params.get("bias"))


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a recurrent network; `recurrent` runs it over time.

    Attributes:
        init: ``init(key, x) -> params``, a dict of arrays; x is the spec of one step, ``(batch, *features)``.
        start: ``start(x) -> carry``, what the first step gets, from the same spec: a pytree whose arrays begin with the
            batch.
        step: ``step(params, carry, u) -> (carry, y)``.
        project: ``project(params, x) -> u``: whatever can be made of the input without the carry. It is called once,
            with all steps as one batch. None: u is x.
        hidden: ``hidden(carry) -> h``, what ``mix`` is given before each step. None: the cell does its own products.
        mix: ``mix(params, h)``, what is made of the hidden state alone; it is added to u. The gradient of the
            parameters that it reads is made at once after the last step, and not added up over the steps. By default
            the product with ``recurrent_kernel``, and the bias where there is one.
        apart: Whether what is mixed is not added to u, but is the fourth argument of ``step``.
        name: The kind.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> def leaky(decay):
        ...     def init(key, x):
        ...         return {}
        ...     def start(x):
        ...         return jnp.zeros(x.shape, x.dtype)
        ...     def step(params, carry, x):
        ...         carry = decay * carry + x
        ...         return carry, carry
        ...     return fnn.Cell(init, start, step, name="leaky")
        >>> net = fnn.recurrent(leaky(0.5))
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3, 1)))
        >>> net.apply(params, state, jnp.ones((1, 3, 1)))[0].ravel().tolist()
        [1.0, 1.5, 1.75]
    """

    init: Callable[[jax.Array, Any], dict[str, Any]]
    start: Callable[[Any], Any]
    step: Callable[..., tuple[Any, Any]]
    project: Callable[[dict[str, Any], jax.Array], Any] | None = None
    hidden: Callable[[Any], jax.Array] | None = None
    mix: Callable[[dict[str, Any], jax.Array], jax.Array] = mix
    apart: bool = False
    name: str = "cell"

    def __repr__(self) -> str:
        return f"{self.name}_cell"


def rnn_cell(
    features: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    bias: bool = True,
    kernel_init: Init = jax.nn.initializers.lecun_normal(),
    recurrent_init: Init = jax.nn.initializers.orthogonal(),
    bias_init: Init = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Cell:
    """The simplest recurrent cell: ``h = activation(x @ kernel + h @ recurrent_kernel + bias)``.

    Args:
        features: Size of the hidden state.
        activation: The nonlinearity.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel.
        recurrent_init: Initializer of the recurrent kernel.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters.

    Returns:
        A `Cell`; its carry is ``h (batch, features)``.

        - params: ``kernel (features_in, features)``, ``recurrent_kernel (features, features)``, ``bias (features,)``

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> params = fnn.rnn_cell(4).init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params["recurrent_kernel"].shape
        (4, 4)
    """
    init = _gates(1, features, bias, False, kernel_init, recurrent_init, bias_init, dtype)

    def step(params: Any, h: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = activation(u)
        return h, h

    return Cell(
        init,
        lambda x: jnp.zeros((x.shape[0], features), x.dtype),
        step,
        _product(1, features, bias),
        lambda h: h,
        name="rnn",
    )


def lstm_cell(
    features: int,
    *,
    forget_bias: float = 1.0,
    bias: bool = True,
    kernel_init: Init = jax.nn.initializers.lecun_normal(),
    recurrent_init: Init = jax.nn.initializers.orthogonal(),
    bias_init: Init = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Cell:
    """Long short-term memory: gates decide what enters, what stays and what leaves a memory.

    Args:
        features: Size of the hidden state and of the memory.
        forget_bias: Added to the initial bias of the forget gate, so that the memory lasts at first.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel of each gate.
        recurrent_init: Initializer of the recurrent kernel of each gate.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters.

    Returns:
        A `Cell`; its carry is the pair ``(h, c)``, each ``(batch, features)``.

        - params: ``kernel (features_in, 4 * features)``, ``recurrent_kernel (features, 4 * features)``,
          ``bias (4 * features,)``; the gates are input, forget, memory, output, as in PyTorch and Keras

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> params = fnn.lstm_cell(4).init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params["bias"][4:8].tolist()
        [1.0, 1.0, 1.0, 1.0]

    References:
        Hochreiter and Schmidhuber, Long short-term memory, 1997, Neural Computation 9(8).
        Gers, Schmidhuber and Cummins, Learning to forget, 2000, Neural Computation 12(10).
    """
    make = _gates(4, features, bias, False, kernel_init, recurrent_init, bias_init, dtype)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        params = make(key, x)
        if bias:
            params["bias"] = params["bias"].at[features : 2 * features].add(forget_bias)
        return params

    def start(x: Any) -> tuple[jax.Array, jax.Array]:
        zeros = jnp.zeros((x.shape[0], features), x.dtype)
        return zeros, zeros

    return Cell(init, start, _lstm_step, _product(4, features, bias), lambda carry: carry[0], name="lstm")


def gru_cell(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Init = jax.nn.initializers.lecun_normal(),
    recurrent_init: Init = jax.nn.initializers.orthogonal(),
    bias_init: Init = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Cell:
    """Gated recurrent unit: one gate resets, one decides how much of the old state stays.

    The reset gate acts after the recurrent product, as in cuDNN, PyTorch and Keras.

    Args:
        features: Size of the hidden state.
        bias: Whether to add biases.
        kernel_init: Initializer of the kernel of each gate.
        recurrent_init: Initializer of the recurrent kernel of each gate.
        bias_init: Initializer of the biases.
        dtype: Dtype of the parameters.

    Returns:
        A `Cell`; its carry is ``h (batch, features)``.

        - params: ``kernel (features_in, 3 * features)``, ``recurrent_kernel (features, 3 * features)``,
          ``bias (3 * features,)``, ``recurrent_bias (3 * features,)``; the gates are reset, update, new, as in PyTorch

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> params = fnn.gru_cell(4).init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params["kernel"].shape
        (3, 12)

    References:
        Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.
    """
    init = _gates(3, features, bias, True, kernel_init, recurrent_init, bias_init, dtype)

    def step(params: Any, h: jax.Array, u: jax.Array, mixed: jax.Array) -> tuple[jax.Array, jax.Array]:
        both = 2 * features
        r, z = jnp.split(jax.nn.sigmoid(u[..., :both] + mixed[..., :both]), 2, -1)
        n = jnp.tanh(u[..., both:] + r * mixed[..., both:])
        h = n + z * (h - n)
        return h, h

    def start(x: Any) -> jax.Array:
        return jnp.zeros((x.shape[0], features), x.dtype)

    def project(params: Any, x: jax.Array) -> jax.Array:
        _check_gates(params, 3, features, bias, bias)
        return linear(x, params["kernel"], params.get("bias"))

    def mix(params: Any, h: jax.Array) -> jax.Array:
        return linear(h, params["recurrent_kernel"], params.get("recurrent_bias"))

    return Cell(init, start, step, project, lambda h: h, mix, apart=True, name="gru")


def conv_lstm_cell(
    features: int,
    window: Sequence[int],
    *,
    forget_bias: float = 1.0,
    bias: bool = True,
    kernel_init: Init = jax.nn.initializers.lecun_normal(),
    recurrent_init: Init = jax.nn.initializers.lecun_normal(),
    bias_init: Init = jax.nn.initializers.zeros,
    dtype: Any = jnp.float32,
) -> Cell:
    """An LSTM whose products are convolutions: for films, radar, fields.

    Args:
        features: Channels of the hidden state and of the memory.
        window: Extent of both kernels along each spatial axis, such as ``(3, 3)``; padding keeps the size.
        forget_bias: Added to the initial bias of the forget gate.
        bias: Whether to add a bias.
        kernel_init: Initializer of the kernel.
        recurrent_init: Initializer of the recurrent kernel.
        bias_init: Initializer of the bias.
        dtype: Dtype of the parameters.

    Returns:
        A `Cell`; its input is ``(batch, *space, channels)``, its carry the pair ``(h, c)``, each
        ``(batch, *space, features)``.

        - params: ``kernel (*window, channels, 4 * features)``, ``recurrent_kernel (*window, features, 4 * features)``,
          ``bias (4 * features,)``

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> params = fnn.conv_lstm_cell(4, (3, 3)).init(jax.random.key(0), jnp.ones((2, 8, 8, 3)))
        >>> params["recurrent_kernel"].shape
        (3, 3, 4, 16)

    References:
        Shi et al., Convolutional LSTM network: a machine learning approach for precipitation nowcasting, 2015,
        arXiv:1506.04214.
    """
    check_positive_int("features", features)
    window = tuple(window)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        if len(x.shape) != len(window) + 2:
            raise ValueError(
                f"a step of x has shape {x.shape}, wanted (batch, *space, channels) with {len(window)} axes of space"
            )
        shape = lambda channels: (*window, channels, 4 * features)
        params = {
            "kernel": kernel_init(fold(key, "kernel"), shape(x.shape[-1]), dtype),
            "recurrent_kernel": recurrent_init(fold(key, "recurrent_kernel"), shape(features), dtype),
        }
        if bias:
            first = bias_init(fold(key, "bias"), (4 * features,), dtype)
            params["bias"] = first.at[features : 2 * features].add(forget_bias)
        return params

    def start(x: Any) -> tuple[jax.Array, jax.Array]:
        zeros = jnp.zeros((*x.shape[:-1], features), x.dtype)
        return zeros, zeros

    def project(params: Any, x: jax.Array) -> jax.Array:
        wide = 4 * features
        check_shapes(params, kernel=(*window, None, wide), recurrent_kernel=(*window, features, wide))
        check_shapes(params, bias=(wide,) if bias else None)
        return convolve(x, params["kernel"].astype(x.dtype), padding="SAME")

    def mix(params: Any, h: jax.Array) -> jax.Array:
        mixed = convolve(h, params["recurrent_kernel"].astype(h.dtype), padding="SAME")
        return mixed + params["bias"].astype(h.dtype) if bias else mixed

    return Cell(init, start, _lstm_step, project, lambda carry: carry[0], mix, name="conv_lstm")


def _lstm_step(params: Any, carry: Any, u: jax.Array) -> Any:
    _, c = carry
    # sigmoid(x) is tanh(x / 2) / 2 + 1 / 2: one loop over all gates takes a CPU half the time of one for each.
    scale = np.repeat([0.5, 0.5, 1.0, 0.5], u.shape[-1] // 4).astype(u.dtype)
    i, f, g, o = jnp.split(jnp.tanh(u * scale) * scale + (1 - scale), 4, -1)
    c = f * c + i * g
    h = o * jnp.tanh(c)
    return (h, c), h


def _gates(
    gates: int, features: int, bias: bool, recurrent_bias: bool, kernel_init: Init, recurrent_init: Init,
    bias_init: Init, dtype: Any,
) -> Callable[..., dict[str, jax.Array]]:  # fmt: skip
    """``init`` of a cell with so many gates, each of which is initialised by itself."""
    check_positive_int("features", features)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        def make(name: str, initializer: Init, before: int) -> jax.Array:
            keys = jax.random.split(fold(key, name), gates)
            return jnp.concatenate([initializer(one, (before, features), dtype) for one in keys], -1)

        params = {
            "kernel": make("kernel", kernel_init, x.shape[-1]),
            "recurrent_kernel": make("recurrent_kernel", recurrent_init, features),
        }
        names = (["bias"] + ["recurrent_bias"] * recurrent_bias) if bias else []
        return params | {name: bias_init(fold(key, name), (gates * features,), dtype) for name in names}

    return init


def _check_gates(params: Any, gates: int, features: int, bias: bool, recurrent_bias: bool) -> None:
    wide = gates * features
    check_shapes(params, kernel=(None, wide), recurrent_kernel=(features, wide))
    check_shapes(params, bias=(wide,) if bias else None, recurrent_bias=(wide,) if recurrent_bias else None)


def _product(gates: int, features: int, bias: bool) -> Callable[..., jax.Array]:
    def project(params: Any, x: jax.Array) -> jax.Array:
        _check_gates(params, gates, features, bias, False)
        return linear(x, params["kernel"])

    return project
