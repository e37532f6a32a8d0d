"""Beam search finds the best continuation where it can see them all."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

import fnn

VOCABULARY, END = 4, 0
PROMPT = np.array([[1, 2], [3, 1]])


def net(cache: bool = True) -> fnn.Layer:
    return fnn.serial(fnn.embedding(VOCABULARY, 8), fnn.lstm(8, cache=cache), fnn.dense(VOCABULARY))


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.tree.map(lambda leaf: 3 * leaf, net(False).init(jax.random.key(3), PROMPT)[0])


def all_continuations(params: Any, prompt: Any, tokens: int, penalty: float) -> list[tuple[float, list[int]]]:
    """Every continuation that ends, or is as long as may be, with its score; the best first."""
    found = {}
    every = list(itertools.product(range(VOCABULARY), repeat=tokens))
    ids = np.array([[*prompt, *more] for more in every])
    logs = np.asarray(jax.nn.log_softmax(jax.jit(net(False).apply)(params, {}, ids)[0]))
    for row, more in enumerate(every):
        length = more.index(END) + 1 if END in more else tokens
        kept = more[:length]
        total = sum(float(logs[row, len(prompt) - 1 + i, kept[i]]) for i in range(length))
        found[kept] = total / ((5 + length) / 6) ** penalty
    return sorted(((score, [*prompt, *kept]) for kept, score in found.items()), reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_enough_beams_it_finds_the_best_of_all(penalty: float, params: Any) -> None:
    found = fnn.beam_search(net(), params, PROMPT, 3, end=END, beams=40, length_penalty=penalty, pad=9)
    for row in range(2):
        wanted = all_continuations(params, PROMPT[row], 3, penalty)
        for beam in range(3):
            length = int(found.lengths[row, beam])
            assert found.ids[row, beam, :length].tolist() == wanted[beam][1]
            assert (np.asarray(found.ids[row, beam, length:]) == 9).all()
        np.testing.assert_allclose(found.scores[row, :3], [score for score, _ in wanted[:3]], atol=1e-4)


def test_one_beam_takes_the_best_id_each_time(params: Any) -> None:
    found = fnn.beam_search(net(), params, PROMPT, 6, end=-1, beams=1)
    np.testing.assert_array_equal(found.ids[:, 0], fnn.generate(net(), params, PROMPT, 6).ids)


def test_more_beams_find_no_worse(params: Any) -> None:
    best = [
        np.asarray(fnn.beam_search(net(), params, PROMPT, 6, end=END, beams=beams, length_penalty=0.0).scores[:, 0])
        for beams in (1, 16)
    ]
    assert (best[1] >= best[0] - 1e-5).all()


def test_every_row_is_searched_by_itself(params: Any) -> None:
    both = fnn.beam_search(net(), params, PROMPT, 5, end=END)
    for row in range(2):
        alone = fnn.beam_search(net(), params, PROMPT[row : row + 1], 5, end=END)
        np.testing.assert_allclose(alone.scores[0], both.scores[row], atol=1e-5)


def test_beams_of_a_decoder_share_the_cached_memory(key: jax.Array) -> None:
    # The memory of an example is kept once for its beams, which change places: scores must be those without caches.
    memory = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    lengths = np.array([5, 3])

    def translator(cache: int | None = None) -> fnn.Layer:
        def forward(f: Any, ids: Any, memory: Any, lengths: Any) -> Any:
            return f.head(f.decoder(f.embedding(ids), memory, lengths))

        return fnn.wire(
            forward, embedding=fnn.embedding(VOCABULARY, 8), decoder=fnn.decoder(2, 2, 16, cache=cache),
            head=fnn.dense(VOCABULARY),
        )  # fmt: skip

    params = jax.tree.map(lambda leaf: 2 * leaf, translator().init(key, PROMPT, memory, lengths)[0])
    found = fnn.beam_search(translator(8), params, PROMPT, 5, memory, lengths, end=-1, beams=4, length_penalty=0.0)
    for beam in range(4):
        ids = np.asarray(found.ids[:, beam])
        logs = jax.nn.log_softmax(translator().apply(params, {}, ids, memory, lengths)[0][:, 1:-1])
        total = np.take_along_axis(np.asarray(logs), ids[:, 2:, None], -1).sum((1, 2))
        np.testing.assert_allclose(found.scores[:, beam], total, atol=1e-4)
    assert len({tuple(row) for row in np.asarray(found.ids[0]).tolist()}) == 4


def test_a_layer_named_memory_is_searched_as_any_other(key: jax.Array) -> None:
    # The caches of a child named "memory" did not follow the beams, and beams and scores were wrong.
    def network(name: str) -> fnn.Layer:
        def forward(f: Any, ids: Any) -> Any:
            x = f.embedding(ids)
            return f.head(x + f[name](x))

        child = {name: fnn.attention(2, causal=True, cache=14)}
        return fnn.wire(forward, embedding=fnn.embedding(11, 16), **child, head=fnn.dense(11))

    params = jax.tree.map(lambda leaf: 4 * leaf, network("memory").init(key, PROMPT)[0])
    found = fnn.beam_search(network("memory"), params, PROMPT, 8, end=END, beams=4)
    params["attention"] = params.pop("memory")
    wanted = fnn.beam_search(network("attention"), params, PROMPT, 8, end=END, beams=4)
    assert np.array_equal(found.ids, wanted.ids)
    assert np.array_equal(found.scores, wanted.scores)
