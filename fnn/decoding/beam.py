"""Search for the most probable continuation, several at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnn.core.errors import short_tracebacks
from fnn.core.layer import Layer
from fnn.core.programs import call_compiled
from fnn.decoding.cache import check_prompt, fresh_state, map_cache
from fnn.ops.checks import check_positive_int


class Beams(NamedTuple):
    """What `beam_search` returns, the best first.

    Attributes:
        ids: ``(batch, beams, prompt + tokens)`` int32, padded after the end.
        scores: ``(batch, beams)`` float32: the log-probability of what follows the prompt, divided by the penalty.
        lengths: ``(batch, beams)`` int32: how many ids are no padding; the end token counts.
    """

    ids: jax.Array
    scores: jax.Array
    lengths: jax.Array


class _Search(NamedTuple):
    """Beams that go on, and the best of those that ended."""

    at: jax.Array
    ids: jax.Array
    totals: jax.Array
    state: Any
    logits: jax.Array
    done_ids: jax.Array
    done_scores: jax.Array
    done_lengths: jax.Array


@short_tracebacks
def beam_search(
    net: Layer,
    params: dict[str, Any],
    prompt: Any,
    tokens: int,
    *inputs: Any,
    end: int,
    beams: int = 4,
    length_penalty: Any = 0.6,
    state: dict[str, Any] | None = None,
    pad: int = 0,
) -> Beams:
    """Beam search: the most probable continuations of a prompt, in one compiled call.

    A continuation that ends is set aside with its score; the search stops when none that goes on could still be better
    than the worst of as many that ended, or there are no more tokens. Those that have not ended by then count as they
    are.

    Args:
        net: As in `fnn.generate`: built with caches.
        params: Its parameters.
        prompt: ids ``(batch, time)``.
        tokens: How many ids to add at most.
        *inputs: Further inputs of every call, with a batch axis, such as a memory and its mask.
        end: The id that ends a continuation.
        beams: How many are kept. 1: the best id each time.
        length_penalty: Scores are divided by ``((5 + length) / 6) ** length_penalty``, where length counts what was
            added; 0 prefers short ones. May be traced.
        state: State of the trained network beside the caches.
        pad: The id that fills a row after its end.

    Returns:
        The continuations, their scores and lengths.

    Raises:
        LayerError: when the network has no cache.
        ValueError: when the prompt is empty or no batch of ids.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> net = fnn.serial(fnn.embedding(10, 8), fnn.lstm(8, cache=True), fnn.dense(10))
        >>> prompt = jnp.array([[1], [3]])
        >>> params, _ = net.init(jax.random.key(0), prompt)
        >>> found = fnn.beam_search(net, params, prompt, 5, end=0, beams=3)
        >>> found.ids.shape, found.scores.shape
        ((2, 3, 6), (2, 3))

    References:
        Wu et al., Google's neural machine translation system, 2016, arXiv:1609.08144, section 7 (the penalty).
    """
    check_positive_int("tokens", tokens)
    check_positive_int("beams", beams)
    prompt, _ = check_prompt(prompt, None)
    args = (params, state or {}, prompt, inputs, end, length_penalty, pad)
    return call_compiled(net, _search, *args, static=(tokens, beams))


def _search(
    net: Layer, tokens: int, beams: int, params: Any, state: Any, prompt: jax.Array, inputs: Any, end: Any,
    length_penalty: Any, pad: Any,
) -> Beams:  # fmt: skip
    batch, time = prompt.shape
    penalty = lambda length: ((5.0 + length) / 6.0) ** length_penalty
    spread = lambda array: jnp.repeat(array, beams, 0)
    many = jax.tree.map(spread, inputs)

    y, state = net.apply(params, fresh_state(net, state, prompt, *inputs), prompt, *inputs)
    blank = jnp.full((batch, beams, time + tokens), pad, jnp.int32).at[..., :time].set(prompt[:, None])
    only_first = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # at first all beams are the same
    begun = _Search(
        jnp.asarray(0),
        blank,
        jnp.broadcast_to(only_first, (batch, beams)),
        map_cache(spread, state),
        spread(y[:, -1]),
        blank,
        jnp.full((batch, beams), -jnp.inf),
        jnp.full((batch, beams), time + tokens, jnp.int32),
    )

    def going(search: _Search) -> jax.Array:
        bound = jnp.max(search.totals, 1) / jnp.where(length_penalty > 0, penalty(tokens), penalty(search.at + 1))
        return (search.at < tokens) & jnp.any(bound > jnp.min(search.done_scores, 1))

    def choose(search: _Search) -> tuple[_Search, jax.Array, jax.Array]:
        """Of every continuation by one id, take twice as many as there are beams: half of them may end."""
        logs = jax.nn.log_softmax(search.logits.astype(jnp.float32)).reshape(batch, beams, -1)
        vocabulary = logs.shape[-1]
        totals = (search.totals[..., None] + logs).reshape(batch, -1)
        best, where = jax.lax.top_k(totals, min(2 * beams, totals.shape[1]))
        parents, ids = where // vocabulary, (where % vocabulary).astype(jnp.int32)
        grown = jnp.take_along_axis(search.ids, parents[..., None], 1)
        grown = jax.lax.dynamic_update_index_in_dim(grown, ids, time + search.at, 2)
        ended = ids == end

        scores = jnp.where(ended, best / penalty(search.at + 1), -jnp.inf)
        lengths = jnp.full(scores.shape, time + search.at + 1, jnp.int32)
        aside = [
            jnp.concatenate(pair, 1)
            for pair in ((search.done_scores, scores), (search.done_ids, grown), (search.done_lengths, lengths))
        ]
        done_scores, kept = jax.lax.top_k(aside[0], beams)
        done_ids = jnp.take_along_axis(aside[1], kept[..., None], 1)
        done_lengths = jnp.take_along_axis(aside[2], kept, 1)

        totals, kept = jax.lax.top_k(jnp.where(ended, -jnp.inf, best), beams)
        parents, ids = (jnp.take_along_axis(array, kept, 1) for array in (parents, ids))
        search = search._replace(
            at=search.at + 1, ids=jnp.take_along_axis(grown, kept[..., None], 1), totals=totals,
            done_ids=done_ids, done_scores=done_scores, done_lengths=done_lengths,
        )  # fmt: skip
        return search, parents, ids

    def read(search: _Search, parents: jax.Array, ids: jax.Array) -> _Search:
        rows = (parents + beams * jnp.arange(batch)[:, None]).reshape(-1)
        state = map_cache(lambda leaf: leaf[rows], search.state, memory=False)
        y, state = net.apply(params, state, ids.reshape(-1, 1), *many)
        return search._replace(state=state, logits=y[:, -1])

    def advance(search: _Search) -> _Search:
        return read(*choose(search))

    search = jax.lax.while_loop(lambda search: going(search) & (search.at < tokens - 1), advance, begun)
    search, _, _ = choose(search)  # the last id is not read
    scores = jnp.concatenate([search.done_scores, search.totals / penalty(search.at)], 1)
    lengths = jnp.concatenate([search.done_lengths, jnp.full_like(search.done_lengths, time + search.at)], 1)
    best, kept = jax.lax.top_k(scores, beams)
    ids = jnp.take_along_axis(jnp.concatenate([search.done_ids, search.ids], 1), kept[..., None], 1)
    return Beams(ids, best, jnp.take_along_axis(lengths, kept, 1))
