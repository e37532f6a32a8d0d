"""Translate sentences with a transformer, as in the paper that introduced it, only smaller.

An encoder reads the English sentence, every piece of a word looking at all others. A decoder writes the translation
piece by piece: each piece looks at those that are written already and, by cross-attention, at what the encoder found.
In training it is given the right beginning and says how probable each next piece is. Label smoothing asks for a
probability of 0.9 rather than 1, the learning rate warms up and then falls.

To translate, the decoder goes on from the mark of a beginning. Greedy search takes the best piece each time. Beam
search keeps the best few beginnings, which finds more probable translations. BLEU says how many runs of one to four
words of the translations are those of a person's, from 0 to 100; sacrebleu computes it. The method to beat looks up the
most similar English sentence of the training part, by TF-IDF, and gives its translation.

By default this reads Multi30k, captions of photographs in English and German; ``--data tatoeba`` reads everyday
sentences in English and Spanish. ``--prompt "A dog runs."`` translates a sentence of your own at the end.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sentences
from matplotlib.figure import Figure
from sentences import BEGIN, END
from sklearn.feature_extraction.text import TfidfVectorizer

import fnn
import fnn.plot

try:
    from sacrebleu import corpus_bleu
except ImportError:
    corpus_bleu = None

LONGEST = 24  # pieces of a sentence that is learned from; longer ones are left out
ROOM = 48  # pieces of a translation at most
AT_ONCE = 250  # sentences that are translated side by side
SHOWN = 3  # test sentences that are printed


def reader(vocabulary: int, *, blocks: int, heads: int, features: int, rate: float | None) -> fnn.Layer:
    """What is made of a sentence, ``(batch, time, features)``, from its ids and their number."""

    def forward(f: Any, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        return f.encoder(f.positions(f.embedding(ids)), lengths)

    return fnn.wire(
        forward, embedding=fnn.embedding(vocabulary, features), positions=fnn.learned_positions(128),
        encoder=fnn.encoder(blocks, heads, 4 * features, rate=rate),
    )  # fmt: skip


def writer(
    vocabulary: int, *, blocks: int, heads: int, features: int, rate: float | None, cache: int | None = None
) -> fnn.Layer:
    """Scores of every next piece, from the pieces so far and what was read; one table embeds and scores."""

    def forward(f: Any, ids: jax.Array, memory: jax.Array, lengths: jax.Array) -> jax.Array:
        h = f.decoder(f.positions(f.embedding(ids)), memory, lengths)
        return h @ f.embedding.params["embedding"].T

    return fnn.wire(
        forward, embedding=fnn.embedding(vocabulary, features),
        positions=fnn.learned_positions(128, cache=cache is not None),
        decoder=fnn.decoder(blocks, heads, 4 * features, rate=rate, cache=cache),
    )  # fmt: skip


def translator(source: fnn.Layer, target: fnn.Layer) -> fnn.Layer:
    """Both, for training: the decoder is given the right translation up to each piece."""

    def forward(f: Any, ids: jax.Array, lengths: jax.Array, translation: jax.Array) -> jax.Array:
        return f.writer(translation, f.reader(ids, lengths), lengths)

    return fnn.wire(forward, reader=source, writer=target)


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """In nats for each piece."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, target)


def smoothed(logits: jax.Array, target: jax.Array) -> jax.Array:
    """A tenth of the probability is spread over all pieces; without making an array of what is wanted of each."""
    uniform = jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)
    return 0.9 * cross_entropy(logits, target) + 0.1 * uniform


class Vocabularies(NamedTuple):
    """Pieces of words of the two languages."""

    source: sentences.Tokens
    target: sentences.Tokens


def prepare(pairs: list[sentences.Pair], words: Vocabularies, length: int | None = None) -> Any:
    """Inputs, targets and weights of the pairs; those with more than ``length`` pieces are left out."""
    sources = words.source.encode([pair[0] for pair in pairs])
    targets = words.target.encode([pair[1] for pair in pairs], ends=True)
    fits = [row for row in zip(sources, targets) if length is None or (len(row[0]) <= length >= len(row[1]) - 1)]
    ids, lengths = sentences.padded([row[0] for row in fits], length)
    known, _ = sentences.padded([row[1][:-1] for row in fits], length)
    following, real = sentences.padded([row[1][1:] for row in fits], length)
    weight = (np.arange(following.shape[1]) < real[:, None]).astype(np.float32)
    return (ids, lengths, known), following, weight


def train(
    net: fnn.Layer, data: Any, validation: Any, *, epochs: int, batch_size: int, learning_rate: float, seed: int
) -> tuple[fnn.TrainState, Any]:
    """Train with a warm-up and a cosine down to a hundredth, and keep the epoch that is best on validation."""
    steps = epochs * (len(data[1]) // batch_size)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 10, steps, learning_rate / 100)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    metrics = {"cross-entropy": cross_entropy, "accuracy": fnn.accuracy}
    objective = fnn.supervised(net, smoothed, metrics=metrics, inputs=lambda x: x)
    run = fnn.train_init(net, optimizer, jax.random.key(seed), *jax.tree.map(lambda ids: ids[:1], data[0]))
    rule = fnn.early_stopping(patience=epochs, minimize="validation/cross-entropy")
    return fnn.fit(
        objective, optimizer, run, data, batch_size=batch_size, epochs=epochs, validation=validation,
        early_stopping=rule,
    )  # fmt: skip


class Translator(NamedTuple):
    """A trained network, ready to translate: the writer has a cache, so that each piece is read once."""

    words: Vocabularies
    reader: fnn.Layer
    writer: fnn.Layer
    params: Any

    def __call__(self, texts: list[str], beams: int | None = None) -> list[str]:
        """Translate each text, by greedy search or by beam search."""
        found = []
        encoded, counts = sentences.padded(self.words.source.encode(texts))
        for start in range(0, len(texts), AT_ONCE):
            ids, lengths = encoded[start : start + AT_ONCE], counts[start : start + AT_ONCE]
            memory = fnn.predict(self.reader, self.params["reader"], {}, ids, lengths)
            prompt = np.full((len(ids), 1), BEGIN)
            params, room = self.params["writer"], ROOM - 1
            if beams is None:
                made = fnn.generate(self.writer, params, prompt, room, memory, lengths, end=END).ids
            else:
                made = fnn.beam_search(self.writer, params, prompt, room, memory, lengths, end=END, beams=beams).ids[
                    :, 0
                ]
            found += [self.words.target.decode(row) for row in np.asarray(made)]
        return found

    def attention(
        self, plain: fnn.Layer, text: str, translation: str, heads: int
    ) -> tuple[list[str], list[str], np.ndarray]:
        """Which pieces of the text the last block looked at to write each piece: pieces, pieces, mean over heads.

        `fnn.capture` gives what goes into cross-attention; the weights are the softmax of products of that.
        """
        ids, written = self.words.source.encode([text]), self.words.target.encode([translation], ends=True)[0]
        lengths = np.array([len(ids[0])])
        memory = fnn.predict(self.reader, self.params["reader"], {}, np.array(ids), lengths)
        watched = fnn.capture(plain, "*/cross_attention_norm")
        (_, outputs), _ = watched.apply(self.params["writer"], {}, np.array([written[:-1]]), memory, lengths)
        last = max(outputs)
        params = jax.tree.map(lambda leaf: leaf[-1], self.params["writer"]["decoder"]["blocks"]["cross_attention"])
        of_heads = lambda x: x.reshape(x.shape[0], heads, -1)
        query = of_heads(outputs[last][0] @ params["query_kernel"] + params["query_bias"])
        key = of_heads(memory[0] @ params["key_kernel"] + params["key_bias"])
        scores = jnp.einsum("qhf,khf->hqk", query, key) / jnp.sqrt(query.shape[-1])
        weights = np.asarray(jax.nn.softmax(scores).mean(axis=0))
        return self.words.source.pieces(ids[0]), self.words.target.pieces(written[1:]), weights


def attention_map(across: list[str], down: list[str], weights: np.ndarray, languages: tuple[str, str]) -> Figure:
    """Draw the weights of cross-attention: a row for each piece that is written."""
    figure = Figure(figsize=(2.2 + 0.36 * len(across), 1.7 + 0.3 * len(down)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(len(across)), across, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down)
    axes.set(xlabel=f"{languages[0]}, read", ylabel=f"{languages[1]}, written", title="Where the decoder looks")
    figure.colorbar(image, label="weight, mean over heads", shrink=0.8)
    return figure


def most_similar(train: list[sentences.Pair], texts: list[str]) -> list[str]:
    """The translation of the sentence of the training part whose words are most like those of each text."""
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    known = words.fit_transform([pair[0] for pair in train]).T
    parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
    places = [(words.transform(part) @ known).toarray().argmax(axis=1) for part in parts]
    return [train[place][1] for place in np.concatenate(places)]


def main(
    data: str = "multi30k",
    *,
    blocks: int = 2,
    heads: int = 4,
    features: int = 128,
    vocabulary: int = 4000,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    rate: float = 0.1,
    beams: int = 4,
    prompt: str | None = None,
    seed: int = 0,
    output: str | Path = "outputs/translation",
    examples: int | None = None,
    tested: int | None = None,
) -> dict[str, float]:
    """Train, translate the test set once in each way, and save two pictures.

    Args:
        data: ``"multi30k"`` or ``"tatoeba"``.
        blocks: Of the encoder, and of the decoder.
        heads: Heads of attention.
        features: Width.
        vocabulary: Pieces of words in each language at most.
        epochs: Passes over the training pairs.
        batch_size: Pairs for each step.
        learning_rate: The highest of the schedule.
        rate: Dropout; 0 for none.
        beams: How many beginnings beam search keeps.
        prompt: A sentence to translate at the end.
        seed: Decides all that is random, but for the split.
        output: Folder of the pictures.
        examples: Learn from so many pairs only, for a quick look.
        tested: Translate only the first so many test sentences.

    Returns:
        BLEU by method; NaN where sacrebleu is not installed.
    """
    pairs = sentences.PARALLEL[data]()
    pairs = pairs._replace(train=pairs.train[:examples], test=pairs.test[:tested])
    words = Vocabularies(*(sentences.Tokens(side, vocabulary) for side in zip(*pairs.train)))
    known, validation = prepare(pairs.train, words, LONGEST), prepare(pairs.validation, words)
    print(f"{data}, {' to '.join(pairs.languages)}, sentences of at most {LONGEST} pieces to train on: {len(known[1])}")
    print(f"of {len(pairs.train)}; {len(pairs.validation)} pairs to choose by, {len(pairs.test)} to test")

    options = {"blocks": blocks, "heads": heads, "features": features, "rate": rate or None}
    read, write = reader(len(words.source), **options), writer(len(words.target), **options)
    net = translator(read, write)
    run, history = train(
        net, known, validation, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )
    cached = writer(len(words.target), **options, cache=ROOM)
    translate = Translator(words, read, cached, run.params)

    texts, wanted = [pair[0] for pair in pairs.test], [pair[1] for pair in pairs.test]
    methods = {
        "transformer, greedy": translate,
        f"transformer, {beams} beams": partial(translate, beams=beams),
        "most similar sentence": partial(most_similar, pairs.train),
    }
    best = float(np.min(history["validation/cross-entropy"]))
    print(f"\n{fnn.count(run.params)} parameters; {best:.3f} nats per piece on validation, at best")
    print(f"{'':24}{'BLEU':>8}{'seconds':>9}")
    translations, found = {}, {}
    for method, function in methods.items():
        begun = time.perf_counter()
        translations[method] = function(texts)
        seconds = time.perf_counter() - begun
        found[method] = corpus_bleu(translations[method], [wanted]).score if corpus_bleu else float("nan")
        print(f"{method:24}{found[method]:8.2f}{seconds:9.1f}")
    if corpus_bleu is None:
        print("BLEU is computed by sacrebleu: python -m pip install sacrebleu")
    for place in range(min(SHOWN, len(texts))):
        print(f"\n{texts[place]}\n  {'a person':24}{wanted[place]}")
        for method, made in translations.items():
            print(f"  {method:24}{made[place]}")

    text = prompt or texts[0]
    translation = translate([prompt], beams=beams)[0] if prompt else translations[f"transformer, {beams} beams"][0]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    fnn.plot.learning_curves(history).savefig(folder / f"{data}_curves.png", dpi=150)
    drawn = attention_map(*translate.attention(write, text, translation, heads), pairs.languages)
    drawn.savefig(folder / f"{data}_attention.png", dpi=150)
    print(f"\npictures: {folder}/{data}_curves.png, {data}_attention.png")
    if prompt:
        print(f"\n{prompt}\n{translation}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="multi30k", choices=list(sentences.PARALLEL))
    parser.add_argument("--blocks", type=int, default=2, help="of encoder and decoder (default: 2)")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--features", type=int, default=128, help="width (default: 128)")
    parser.add_argument("--vocabulary", type=int, default=4000, help="pieces of words (default: 4000)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training pairs (default: 10)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--rate", type=float, default=0.1, help="dropout (default: 0.1)")
    parser.add_argument("--beams", type=int, default=4, help="of beam search (default: 4)")
    parser.add_argument("--prompt", help="a sentence to translate at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/translation", help="folder of the pictures")
    parser.add_argument("--examples", type=int, help="learn from so many pairs only, for a quick look")
    parser.add_argument("--tested", type=int, help="translate only so many test sentences")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), **arguments)
    except files.DatasetError as error:
        sys.exit(str(error))
