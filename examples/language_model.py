"""Learn to write, character by character: a GPT and an LSTM on the same text.

Both read a piece of text and say, after each character, how probable every next one is. Training makes the
cross-entropy small, in nats per character: the natural logarithm of how many characters it hesitates between.

By default this reads twenty of Shakespeare's sonnets, which come along; so little text is soon learned by heart, as the
rising validation loss shows. ``--data tinyshakespeare`` reads a million characters of his plays. ``--prompt "Shall I"``
goes on from there, one character at a time.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import files
import jax
import numpy as np
import optax
import texts

import fnn
import fnn.plot


def gpt(
    size: int, *, blocks: int, features: int, heads: int, length: int, rate: float, cache: int | None = None
) -> fnn.Layer:
    """A transformer: every character looks at those before it, no further back than in training."""
    trunk = fnn.encoder(
        blocks, heads, 4 * features, causal=True, window=length, positions=fnn.Rotary(), rate=rate, cache=cache
    )
    return fnn.language_model(size, features, trunk, rate=rate)


def lstm(
    size: int, *, blocks: int, features: int, heads: int, length: int, rate: float, cache: int | None = None
) -> fnn.Layer:
    """Recurrent layers: what was read is remembered in a state of fixed size."""
    layers = [part for _ in range(blocks) for part in (fnn.lstm(features, cache=cache is not None), fnn.dropout(rate))]
    return fnn.language_model(size, features, fnn.serial(*layers), rate=rate)


NETWORKS = {"gpt": gpt, "lstm": lstm}


def crop(key: jax.Array, batch: Any) -> Any:
    """Take half of each piece, from a random place on: the same text in other pieces each time."""
    length = batch[0].shape[1] // 2
    return fnn.augment.random_crop(length, axes=(1,), parts=("x", "target"))(key, batch)


def train(
    net: fnn.Layer, data: Any, validation: Any, *, steps: int, batch_size: int, learning_rate: float, seed: int
) -> tuple[fnn.TrainState, Any]:
    """Train with a warm-up, a cosine to a tenth, and weight decay on kernels."""
    warm_up = max(1, steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm_up, steps, learning_rate / 10)
    kernels = lambda params: fnn.mask(params, "*kernel")
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1, mask=kernels))
    objective = fnn.supervised(net, optax.losses.softmax_cross_entropy_with_integer_labels)
    run = fnn.train_init(net, optimizer, jax.random.key(seed), data[0][:, : data[0].shape[1] // 2])
    per_epoch = len(data[0]) // batch_size
    return fnn.fit(
        objective, optimizer, run, data, batch_size=batch_size, epochs=max(1, steps // per_epoch), augment=crop,
        validation=validation,
    )  # fmt: skip


def main(
    data: str = "sonnets",
    *,
    models: tuple[str, ...] = ("gpt", "lstm"),
    blocks: int = 2,
    features: int = 128,
    heads: int = 4,
    length: int = 64,
    steps: int = 600,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    rate: float = 0.1,
    temperature: float = 0.8,
    prompt: str | None = None,
    characters: int = 300,
    seed: int = 0,
    output: str | Path = "outputs/language_model",
) -> dict[str, float]:
    """Train each network, write a sample, and save the learning curves.

    Args:
        data: ``"sonnets"``, ``"tinyshakespeare"`` or the path of a text.
        models: ``"gpt"``, ``"lstm"`` or both.
        blocks: Blocks of the GPT, or layers of the LSTM.
        features: Width.
        heads: Heads of attention.
        length: Characters that are read at once.
        steps: About how many steps to train.
        batch_size: Pieces of text for each step.
        learning_rate: The highest of the schedule.
        rate: Dropout.
        temperature: Of the samples: lower is safer, higher is wilder.
        prompt: Text to go on from, shown as it comes. None: a sample that begins with a new line.
        characters: How long a sample is.
        seed: Decides all that is random.
        output: Folder of the picture.

    Returns:
        The validation loss of each network at the end, in nats per character.
    """
    text = texts.load(data)
    known = texts.Characters.of(text)
    ids = known.encode(text)
    held_out = len(ids) // 10  # the end of the text is watched, never learned from
    pieces = texts.windows(ids[:-held_out], 2 * length)
    validation = texts.windows(ids[-held_out:], length)
    print(f"{data}: {len(ids)} characters, {len(known)} different ones, {held_out} held out")
    if len(pieces[0]) < batch_size:
        batch_size = len(pieces[0])
    start = known.encode(prompt if prompt is not None else "\n")[None]

    histories, losses = {}, {}
    for name in models:
        make = partial(
            NETWORKS[name], len(known), blocks=blocks, features=features, heads=heads, length=length, rate=rate
        )
        net = make()
        print(f"\n{name}: training about {steps} steps of {batch_size} x {length} characters")
        run, histories[name] = train(
            net, pieces, validation, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed
        )
        losses[name] = float(histories[name]["validation/loss"][-1])
        best = float(np.min(histories[name]["validation/loss"]))
        print(f"{name}: {fnn.count(run.params)} parameters; nats per character: {losses[name]:.3f}, at best {best:.3f}")
        print(f"{name} writes:\n", prompt or "", sep="", end="", flush=True)
        cached = make(cache=start.shape[1] + characters)
        sample = fnn.Sampler(temperature=temperature)
        for character in fnn.stream(cached, run.params, start, characters, sample=sample, key=jax.random.key(seed)):
            print(known.decode(character), end="", flush=True)
        print()

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    fnn.plot.comparison(histories).savefig(folder / "learning_curves.png", dpi=150)
    print(f"\npicture: {folder}/learning_curves.png")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sonnets", help="sonnets, tinyshakespeare, or the path of a text")
    parser.add_argument("--models", nargs="+", default=["gpt", "lstm"], choices=NETWORKS)
    parser.add_argument("--blocks", type=int, default=2, help="blocks of the GPT, layers of the LSTM (default: 2)")
    parser.add_argument("--features", type=int, default=128, help="width (default: 128)")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--length", type=int, default=64, help="characters that are read at once (default: 64)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--rate", type=float, default=0.1, help="dropout (default: 0.1)")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the samples (default: 0.8)")
    parser.add_argument("--prompt", help="text to go on from")
    parser.add_argument("--characters", type=int, default=300, help="length of a sample (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/language_model", help="folder of the picture")
    arguments = vars(parser.parse_args())
    try:
        main(arguments.pop("data"), models=tuple(arguments.pop("models")), **arguments)
    except (files.DatasetError, ValueError) as error:
        sys.exit(str(error))
