"""Generation is what a loop without caches finds, for every kind of network, ragged prompts and ends."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

VOCABULARY = 11
PROMPT = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [3, 1, 4, 1, 5]])


def gpt(cache: int | None = None) -> fnn.Layer:
    trunk = fnn.encoder(2, 2, 32, causal=True, cache=cache, kernel_init=jax.nn.initializers.normal(1.0))
    return fnn.language_model(VOCABULARY, 8, trunk, positions=fnn.learned_positions(20, cache=cache is not None))


def recurrent(cache: int | None = None) -> fnn.Layer:
    kept = cache is not None
    return fnn.serial(
        fnn.embedding(VOCABULARY, 8), fnn.lstm(16, cache=kept), fnn.gru(8, cache=kept), fnn.dense(VOCABULARY)
    )


NETS = {"attention": gpt, "recurrent": recurrent}


WHOLE = {name: jax.jit(make().apply) for name, make in NETS.items()}


def by_hand(kind: str, params: Any, prompt: Any, tokens: int) -> list[int]:
    """Read everything again for each id, without a cache; zeros after it are not seen by what stands before them."""
    ids = np.zeros((1, 16), int)
    ids[0, : len(prompt)] = prompt
    for place in range(len(prompt), len(prompt) + tokens):
        ids[0, place] = WHOLE[kind](params, {}, ids)[0][0, place - 1].argmax()
    return ids[0, : len(prompt) + tokens].tolist()


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """Weights large enough that the best id changes from step to step."""
    larger = lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree)
    return {name: larger(make().init(jax.random.key(7), PROMPT)[0]) for name, make in NETS.items()}


@pytest.mark.parametrize("kind", NETS)
def test_it_finds_what_a_loop_without_caches_finds(kind: str, trained: Any) -> None:
    found = fnn.generate(NETS[kind](12), trained[kind], PROMPT, 6)
    wanted = [by_hand(kind, trained[kind], row, 6) for row in PROMPT]
    assert found.ids.tolist() == wanted
    assert found.lengths.tolist() == [11, 11, 11]
    assert len({tuple(row[5:]) for row in wanted}) > 1


@pytest.mark.parametrize("kind", NETS)
def test_ragged_prompts_are_each_their_own(kind: str, trained: Any) -> None:
    lengths = [3, 5, 4]
    found = fnn.generate(NETS[kind](12), trained[kind], PROMPT, 4, lengths=lengths)
    for row, length in enumerate(lengths):
        wanted = by_hand(kind, trained[kind], PROMPT[row, :length], 9 - length)
        assert found.ids[row].tolist() == wanted


def test_rows_end_at_their_end_token_and_the_search_when_all_have(trained: Any) -> None:
    free = fnn.generate(gpt(20), trained["attention"], PROMPT, 10).ids
    end = int(free[0, 7])
    found = fnn.generate(gpt(20), trained["attention"], PROMPT, 10, end=end, pad=99)
    for row in range(3):
        made = free[row, 5:].tolist()
        length = 5 + (made.index(end) + 1 if end in made else 10)
        assert int(found.lengths[row]) == length
        assert found.ids[row].tolist() == free[row, :length].tolist() + [99] * (15 - length)


def test_a_prompt_may_hold_the_end_token(trained: Any) -> None:
    found = fnn.generate(gpt(20), trained["attention"], PROMPT, 3, end=2)
    assert found.ids[0, :5].tolist() == PROMPT[0].tolist()
    assert int(found.lengths[0]) > 5


def test_streaming_gives_the_same_ids(trained: Any) -> None:
    whole = fnn.generate(gpt(12), trained["attention"], PROMPT, 6, sample=fnn.Sampler(), key=jax.random.key(1))
    pieces = list(fnn.stream(gpt(12), trained["attention"], PROMPT, 6, sample=fnn.Sampler(), key=jax.random.key(1)))
    np.testing.assert_array_equal(np.stack(pieces, 1), whole.ids[:, 5:])


def test_streaming_stops_when_all_rows_have_ended(trained: Any) -> None:
    first = int(fnn.generate(gpt(12), trained["attention"], PROMPT[:1], 1).ids[0, -1])
    assert len(list(fnn.stream(gpt(12), trained["attention"], PROMPT[:1], 6, end=first))) == 1


def test_sampling_draws_with_the_probabilities_of_the_network(trained: Any) -> None:
    """Many rows with one prompt: how often each id comes first."""
    prompt = np.repeat(PROMPT[:1], 4000, 0)
    found = fnn.generate(
        recurrent(1), trained["recurrent"], prompt, 1, sample=fnn.Sampler(temperature=2.0), key=jax.random.key(2)
    )
    often = np.bincount(found.ids[:, -1], minlength=VOCABULARY) / 4000
    scores = recurrent().apply(trained["recurrent"], {}, PROMPT[:1])[0][0, -1]
    np.testing.assert_allclose(often, jax.nn.softmax(scores / 2), atol=0.03)


def test_the_penalty_keeps_ids_from_coming_again(trained: Any) -> None:
    params = trained["recurrent"] | {"dense_0": {**trained["recurrent"]["dense_0"], "bias": jnp.full(VOCABULARY, 50.0)}}
    sample = fnn.Sampler(temperature=1e-3, repetition_penalty=1e6)  # scores are positive, those of seen ids near 0
    ids = fnn.generate(recurrent(1), params, PROMPT[:1, :1], 9, sample=sample, key=jax.random.key(3)).ids
    assert len(set(ids[0].tolist())) == 10


def test_a_second_call_compiles_nothing(trained: Any) -> None:
    traced = []

    def forward(f: Any, ids: Any) -> Any:
        traced.append(ids.shape)
        return f.net(ids)

    net, params = fnn.wire(forward, net=gpt(12)), {"net": trained["attention"]}
    fnn.generate(net, params, PROMPT, 4)
    count = len(traced)
    fnn.generate(net, params, PROMPT[::-1], 4)
    assert len(traced) == count


def test_further_inputs_go_to_every_call(key: jax.Array) -> None:
    memory, lengths = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32), np.array([4, 2, 3])

    def translator(cache: int | None = None) -> fnn.Layer:
        def forward(f: Any, ids: Any, memory: Any, lengths: Any) -> Any:
            return f.head(f.decoder(f.embedding(ids), memory, lengths))

        return fnn.wire(
            forward, embedding=fnn.embedding(VOCABULARY, 8), decoder=fnn.decoder(2, 2, 16, cache=cache),
            head=fnn.dense(VOCABULARY),
        )  # fmt: skip

    params, _ = translator().init(key, PROMPT, memory, lengths)
    params = jax.tree.map(lambda leaf: 2 * leaf, params)
    found = fnn.generate(translator(10), params, PROMPT, 5, memory, lengths)
    whole, ids = jax.jit(translator().apply), np.pad(PROMPT, ((0, 0), (0, 5)))
    for place in range(5, 10):
        ids[:, place] = whole(params, {}, ids, memory, lengths)[0][:, place - 1].argmax(-1)
    np.testing.assert_array_equal(found.ids, ids)


def test_trained_state_beside_the_caches_is_used(key: jax.Array) -> None:
    def net(cache: bool) -> fnn.Layer:
        return fnn.serial(
            fnn.embedding(VOCABULARY, 8), fnn.lstm(8, cache=cache), fnn.batch_norm(), fnn.dense(VOCABULARY)
        )

    params, state = net(False).init(key, PROMPT)
    state = {"batch_norm_0": {"mean": jnp.full(8, 0.3), "var": jnp.full(8, 0.01)}}
    found = fnn.generate(net(True), params, PROMPT, 1, state=state)
    np.testing.assert_array_equal(found.ids[:, -1], net(False).apply(params, state, PROMPT)[0][:, -1].argmax(-1))


def test_a_sequence_longer_than_the_cache_is_told(trained: Any) -> None:
    with pytest.raises(fnn.LayerError, match="room for 4"):
        fnn.generate(gpt(4), trained["attention"], PROMPT, 2)
    with pytest.raises(fnn.LayerError, match="cache=11 or more"):
        fnn.generate(gpt(6), trained["attention"], PROMPT, 6)
    with pytest.raises(fnn.LayerError, match="cache="):
        list(fnn.stream(gpt(6), trained["attention"], PROMPT, 6))


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (PROMPT[0], {}, "wanted ids"),
        (PROMPT.astype(float), {}, "wanted ids"),
        (PROMPT[:, :0], {}, "wanted ids"),
        (PROMPT, {"lengths": [5, 5]}, "one for each of 3 rows"),
        (PROMPT, {"lengths": [5, 0, 5]}, "from 1 to 5"),
        (PROMPT, {"sample": fnn.Sampler()}, "pass key="),
    ],
)
def test_bad_input_is_told(prompt: Any, options: Any, message: str, trained: Any) -> None:
    with pytest.raises(ValueError, match=message):
        fnn.generate(gpt(12), trained["attention"], prompt, 2, **options)


def test_a_network_without_a_cache_is_told(trained: Any) -> None:
    with pytest.raises(fnn.LayerError, match="has no cache"):
        fnn.generate(gpt(), trained["attention"], PROMPT, 2)


@pytest.mark.parametrize("rows", [1, 2])
def test_caches_are_not_copied_over_and_over(rows: int) -> None:
    net, prompt = gpt(72), jnp.ones((rows, 3), jnp.int32)
    params, _ = net.init(jax.random.key(0), prompt)
    lowered = jax.jit(lambda params: fnn.generate(net, params, prompt, 60).ids).lower(params)
    program = str(lowered.compile({"xla_backend_optimization_level": "3"}).as_text())  # as it is without haste
    assert len(re.findall(r"f32\[[\d,]*72,4\]\S* dynamic-update-slice\(", program)) >= 4
    assert len(re.findall(r"f32\[[\d,]*72,4\]\S* copy\(", program)) <= 4  # two blocks, of which each has two
