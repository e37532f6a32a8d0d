"""Autoregressive generation, one token after the other."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.core.errors import LayerError, short_tracebacks
from fnn.core.layer import Layer
from fnn.core.programs import call_compiled, compiled
from fnn.decoding.cache import Squeezed, check_prompt, fresh_state
from fnn.decoding.sampler import Sampler
from fnn.ops.checks import check_positive_int


class Generated(NamedTuple):
    """What `generate` returns.

    Attributes:
        ids: ``(batch, prompt + tokens)`` int32: the prompt, what follows it, and padding after the end.
        lengths: ``(batch,)`` int32: how many ids of each row are no padding; the end token counts.
    """

    ids: jax.Array
    lengths: jax.Array


class _Run(NamedTuple):
    """What changes from id to id: ``at`` ids of every row are known, and ``scores`` are those of the next."""

    at: jax.Array
    ids: jax.Array
    state: Squeezed
    scores: jax.Array
    ended: jax.Array
    finite: jax.Array


class _Rules(NamedTuple):
    """What does not change."""

    inputs: Any
    lengths: jax.Array
    sample: Sampler | None
    key: jax.Array
    end: jax.Array
    pad: jax.Array


@short_tracebacks
def generate(
    net: Layer,
    params: dict[str, Any],
    prompt: Any,
    tokens: int,
    *inputs: Any,
    state: dict[str, Any] | None = None,
    sample: Sampler | None = None,
    key: jax.Array | None = None,
    lengths: Any = None,
    end: int | None = None,
    pad: int = 0,
) -> Generated:
    """Generate tokens autoregressively, in one compiled call.

    The prompt goes through the network in one piece, then one id at a time. It stops when every row has ended.

    Args:
        net: Maps ids ``(batch, time)`` to scores ``(batch, time, vocabulary)`` and is built with caches
            (``fnn.attention(..., cache=length)``, ``fnn.lstm(..., cache=True)``), so that a call needs only new ids.
        params: Its parameters, such as were trained without caches.
        prompt: ids ``(batch, time)``, at least one in each row.
        tokens: How many ids to add at most.
        *inputs: Further inputs of every call, such as a memory and its mask.
        state: State of the trained network, where it has some beside the caches.
        sample: Draws the next id. None: the best one is taken.
        key: For ``sample``.
        lengths: ``(batch,)``: how many ids of each row of the prompt count; what follows begins there. Ids that only
            some rows have go through the network one at a time. None: all.
        end: The id that ends a row. None: none does.
        pad: The id that fills a row after its end.

    Returns:
        The ids and their lengths.

    Raises:
        LayerError: when the network has no cache, or its scores are not finite, as they are beyond the end of a cache.
        ValueError: when the prompt is empty or no batch of ids, or a length does not fit it.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.embedding(10, 8), fnn.lstm(8, cache=True), fnn.dense(10))
        >>> prompt = jnp.array([[1, 2], [3, 4]])
        >>> params, _ = net.init(jax.random.key(0), prompt)
        >>> found = fnn.generate(net, params, prompt, 5, sample=fnn.Sampler(), key=jax.random.key(1))
        >>> found.ids.shape, found.lengths.tolist()
        ((2, 7), [7, 7])
    """
    check_positive_int("tokens", tokens)
    prefix, rules, prompt = _prepare(prompt, inputs, sample, key, lengths, end, pad)
    ids, lengths, finite = call_compiled(net, _generate, params, state or {}, prompt, rules, static=(prefix, tokens))
    _check_finite(finite, prompt.shape[1] + tokens)
    return Generated(ids, lengths)


@short_tracebacks
def stream(
    net: Layer,
    params: dict[str, Any],
    prompt: Any,
    tokens: int,
    *inputs: Any,
    state: dict[str, Any] | None = None,
    sample: Sampler | None = None,
    key: jax.Array | None = None,
    end: int | None = None,
    pad: int = 0,
) -> Iterator[np.ndarray]:
    """`generate`, as a generator of the next id of every row: what a prompt that is typed wants.

    Args:
        net: As in `generate`, as are all others.
        params: Its parameters.
        prompt: ids ``(batch, time)``.
        tokens: How many ids to give at most.
        *inputs: Further inputs of every call.
        state: State of the trained network beside the caches.
        sample: Draws the next id. None: the best one is taken.
        key: For ``sample``.
        end: The id that ends a row; when all have ended, so does the generator.
        pad: What a row gives after its end.

    Yields:
        ``(batch,)`` int32, on the host.

    Raises:
        LayerError: when the network has no cache, or its scores are not finite.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.embedding(10, 8), fnn.gru(8, cache=True), fnn.dense(10))
        >>> params, _ = net.init(jax.random.key(0), jnp.array([[1]]))
        >>> len(list(fnn.stream(net, params, jnp.array([[1]]), 3)))
        3
    """
    check_positive_int("tokens", tokens)
    prefix, rules, prompt = _prepare(prompt, inputs, sample, key, None, end, pad)
    found = _take(call_compiled(net, _begin, params, state or {}, prompt, rules, static=(prefix, tokens)), rules)
    advance = compiled(net, _advance, params, found, rules, donate=(1,)) if tokens > 1 else None
    for number in range(tokens):
        _check_finite(found.finite, prefix + number + 1)
        yield np.asarray(found.ids[:, prefix + number])
        if advance is None or number == tokens - 1 or bool(found.ended.all()):
            return
        found = advance(params, found, rules)


def _prepare(
    prompt: Any, inputs: Any, sample: Any, key: Any, lengths: Any, end: Any, pad: int
) -> tuple[int, _Rules, jax.Array]:
    prompt, counted = check_prompt(prompt, lengths)
    if sample is not None and key is None:
        raise ValueError("sample= draws random numbers; pass key=jax.random.key(...)")
    fewest = int(counted.min())
    # Fewer programs are compiled when the part that goes in one piece has one of few lengths.
    prefix = prompt.shape[1] if fewest == prompt.shape[1] else 2 ** int(np.log2(fewest))
    key = jax.random.key(0) if key is None else key
    ids = lambda value: jnp.asarray(value, jnp.int32)
    rules = _Rules(inputs, ids(counted), sample, key, ids(-1 if end is None else end), ids(pad))
    return prefix, rules, prompt


def _generate(
    net: Layer, prefix: int, tokens: int, params: Any, state: Any, prompt: jax.Array, rules: _Rules
) -> tuple[jax.Array, jax.Array, jax.Array]:
    total = prompt.shape[1] + tokens
    run = _take(_begin(net, prefix, tokens, params, state, prompt, rules), rules)
    going = lambda run: (run.at < total) & ~run.ended.all()
    run = jax.lax.while_loop(going, lambda run: _advance(net, params, run, rules), run)
    kept = jnp.arange(total) < run.at
    ids = jnp.where(kept, run.ids, rules.pad)
    made = (run.ids[:, :total] == rules.end) & kept & (jnp.arange(total) >= rules.lengths[:, None])
    first = jnp.where(made.any(1), jnp.argmax(made, 1) + 1, total)
    return ids, first.astype(jnp.int32), run.finite


def _begin(net: Layer, prefix: int, tokens: int, params: Any, state: Any, prompt: jax.Array, rules: _Rules) -> _Run:
    """Read what all rows have of the prompt."""
    head = prompt[:, :prefix]
    y, state = net.apply(params, fresh_state(net, state, head, *rules.inputs), head, *rules.inputs)
    ids = jnp.pad(prompt, [(0, 0), (0, tokens)])
    ended = jnp.zeros(len(prompt), bool)
    return _Run(jnp.asarray(prefix), ids, Squeezed.of(state), y[:, -1], ended, jnp.asarray(True))


def _advance(net: Layer, params: Any, run: _Run, rules: _Rules) -> _Run:
    """Read the last id, and take the next one."""
    last = jax.lax.dynamic_slice_in_dim(run.ids, run.at - 1, 1, 1)
    y, state = net.apply(params, run.state.state(), last, *rules.inputs)
    return _take(run._replace(state=Squeezed.of(state), scores=y[:, -1]), rules)


@jax.jit
def _take(run: _Run, rules: _Rules) -> _Run:
    """Choose the next id of every row: that of the prompt, where the row has one."""
    if rules.sample is None:
        chosen = jnp.argmax(run.scores, -1).astype(jnp.int32)
    else:
        seen = None
        if rules.sample.repetition_penalty is not None:
            known = jnp.arange(run.ids.shape[1]) < run.at
            rows = jnp.arange(len(run.ids))[:, None]
            seen = jnp.zeros(run.scores.shape, bool).at[rows, run.ids].max(jnp.broadcast_to(known, run.ids.shape))
        chosen = rules.sample(jax.random.fold_in(rules.key, run.at), run.scores, seen)
    forced = run.at < rules.lengths
    old = jax.lax.dynamic_index_in_dim(run.ids, run.at, 1, keepdims=False)
    chosen = jnp.where(forced, old, jnp.where(run.ended, rules.pad, chosen))
    finite = run.finite & jnp.all(jnp.isfinite(jnp.max(run.scores, -1)) | run.ended)
    return run._replace(
        at=run.at + 1,
        ids=jax.lax.dynamic_update_index_in_dim(run.ids, chosen, run.at, 1),
        ended=run.ended | (~forced & (chosen == rules.end)),
        finite=finite,
    )


def _check_finite(finite: jax.Array, length: int) -> None:
    try:
        good = bool(finite)
    except jax.errors.ConcretizationTypeError:
        return
    if not good:
        raise LayerError(
            f"scores became NaN or infinite within {length} ids; build the network with cache={length} or more, and "
            "with as many positions, or look for NaN in its parameters"
        )
