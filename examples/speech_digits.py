"""Understand spoken digits of people who were never heard before.

Sound becomes a picture: it is cut into frames of 25 ms, a Fourier transform says how much of each pitch is in a frame,
and a bank of filters sums the pitches to 40 bands, narrow for low ones and wide for high ones, as the ear does. The
logarithm of that is the log-mel spectrogram. A convolutional network finds strokes in it, a recurrent network (GRU)
reads them from both ends, and the mean over time becomes a score for each digit.

Six people said each digit fifty times. The network learns from four of them, the fifth decides which epoch was best,
and the sixth is listened to once, at the end. That is much harder than new recordings of known voices. Two tricks make
up for so few voices: in training the bands are stretched and moved at random, as longer and shorter throats would do,
and some of them are silenced. The rival is the nearest centroid: the digit whose mean spectrogram is nearest.

``--strings`` goes on to strings of two to four digits, glued together from recordings of one person, without telling
where one ends: the network gives a digit or a blank every 40 ms, and the CTC loss sums over all ways to say the string.
It begins with the weights for single digits. Its errors are insertions, deletions and replacements per digit.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import spoken
from matplotlib.figure import Figure
from sklearn.neighbors import NearestCentroid

import fnn
import fnn.plot

LONGEST = 1.0  # seconds of a recording; of the few longer ones the rest is cut


def network(features: int, *, strings: bool = False) -> fnn.Layer:
    """Convolutions, a GRU both ways, and a score for each digit: of a recording, or of each step of a string."""

    def forward(f: Any, frames: jax.Array, lengths: jax.Array) -> jax.Array:
        strokes = f.strokes(frames[..., None])
        steps = lengths // spoken.POOLED
        heard = f.memory(strokes.reshape(*strokes.shape[:2], -1), steps)
        return f.steps(heard) if strings else f.digit(heard.sum(axis=1) / steps[:, None])

    strokes = fnn.serial(
        fnn.conv(16, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.conv(32, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)), fnn.dropout(0.2),
    )  # fmt: skip
    head = {"steps": fnn.dense(11)} if strings else {"digit": fnn.serial(fnn.dropout(0.3), fnn.dense(10))}
    return fnn.wire(forward, strokes=strokes, memory=fnn.bidirectional(fnn.gru_cell(features)), **head)


def other_voice(key: jax.Array, batch: Any) -> Any:
    """Stretch and move the bands of each recording, and silence some of them."""
    x, target = batch

    def change(key: jax.Array, frames: jax.Array) -> jax.Array:
        stretch, shift, start, width = (fnn.fold(key, name) for name in ("stretch", "shift", "start", "width"))
        factor = jax.random.uniform(stretch, minval=0.85, maxval=1.15)
        places = jnp.arange(spoken.BANDS) * factor + jax.random.uniform(shift, minval=-2.0, maxval=2.0)
        moved = jax.vmap(lambda frame: jnp.interp(places, jnp.arange(spoken.BANDS), frame))(frames)
        beyond = jnp.arange(spoken.BANDS) - jax.random.randint(start, (), 0, spoken.BANDS)
        silent = (beyond >= 0) & (beyond < jax.random.randint(width, (), 0, 9))
        return jnp.where(silent, 0, moved)

    keys = jax.random.split(key, len(x["frames"]))
    return x | {"frames": jax.vmap(change)(keys, x["frames"])}, target


def train(
    net: fnn.Layer, loss: Any, data: Any, validation: Any, *, epochs: int, key: jax.Array, params: Any = None,
    metrics: Any = None,
) -> tuple[fnn.TrainState, Any]:  # fmt: skip
    """Train, and return the state of the epoch with the least validation loss; ``params`` replace the initial ones."""
    steps = epochs * (len(data[0]["lengths"]) // 32)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(2e-3, steps)))
    objective = fnn.supervised(net, loss, metrics=metrics, inputs=lambda x: (x["frames"], x["lengths"]))
    run = fnn.train_init(net, optimizer, key, data[0]["frames"], data[0]["lengths"])
    run = run._replace(params=run.params | (params or {}))
    return fnn.fit(
        objective, optimizer, run, data, batch_size=32, epochs=epochs, validation=validation, augment=other_voice,
        early_stopping=fnn.early_stopping(epochs, minimize="validation/loss"),
    )  # fmt: skip


def ctc(logits: jax.Array, target: Any) -> jax.Array:
    """CTC with blank 0: the steps after the end of a string, and the padding of its labels, do not count."""
    beyond = jnp.arange(logits.shape[1]) >= target["lengths"][:, None]
    return optax.losses.ctc_loss(logits, beyond * 1.0, target["labels"], (target["labels"] == 0) * 1.0)


def evenly(heard: spoken.Heard, frames: int = 20) -> np.ndarray:
    """Stretch every recording to the same number of frames: rows for the rival."""
    places = np.arange(frames) / (frames - 1)
    rows = [
        sound[np.round(places * (length - 1)).astype(int)].ravel() for sound, length in zip(heard.frames, heard.lengths)
    ]
    return np.array(rows)


def main(
    *,
    strings: bool = False,
    validation_speaker: str = "theo",
    test_speaker: str = "yweweler",
    epochs: int = 12,
    features: int = 48,
    takes: int = spoken.TAKES,
    count: int = 1200,
    seed: int = 0,
    output: str | Path = "outputs/speech_digits",
) -> dict[str, float]:
    """Train, listen to the test speaker once, and save pictures.

    Args:
        strings: Whether to go on to strings of digits.
        validation_speaker: Who decides which epoch was best.
        test_speaker: Who is heard once, at the end.
        epochs: Passes over the recordings, and over the strings.
        features: Size of the GRU's state, each way.
        takes: Use only so many recordings of each digit by each speaker, for a quick look.
        count: Strings to learn from; a quarter as many to choose by and to test.
        seed: Decides all that is random.
        output: Folder of the pictures.

    Returns:
        Accuracies on the test speaker, ``"network"`` and ``"centroid"``; with ``strings`` digit error rates too,
        ``"strings"``, ``"strings, network"`` and ``"strings, centroid"``: the last two were told where digits begin.
    """
    held = [spoken.SPEAKERS.index(name) for name in (validation_speaker, test_speaker)]
    if held[0] == held[1]:
        raise ValueError(f"{test_speaker} cannot both choose and test; name two speakers")
    recordings = spoken.load(takes)
    heard = spoken.hear(recordings.waves, LONGEST)
    who = recordings.speakers
    parts = [np.flatnonzero(rows) for rows in (~np.isin(who, held), who == held[0], who == held[1])]
    print(f"{len(parts[0])} recordings of {len(spoken.SPEAKERS) - 2} speakers to train on, {len(parts[1])} of "
          f"{validation_speaker} to choose by, {len(parts[2])} of {test_speaker} to test")  # fmt: skip

    net = network(features)
    inputs = lambda rows: {"frames": heard.frames[rows], "lengths": heard.lengths[rows]}
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    data, validation = ((inputs(rows), recordings.digits[rows]) for rows in parts[:2])
    key = jax.random.key(seed)
    run, history = train(
        net, loss, data, validation, epochs=epochs, key=key, metrics={"accuracy": fnn.accuracy}
    )  # fmt: skip
    logits = np.asarray(fnn.predict(net, run.params, run.state, heard.frames, heard.lengths))
    rows = evenly(heard)
    centroid = NearestCentroid().fit(rows[parts[0]], recordings.digits[parts[0]])
    answers = {"network": logits.argmax(axis=-1), "nearest centroid": centroid.predict(rows)}

    print(f"\n{'accuracy':18}{'parameters':>11}{'train':>9}{validation_speaker:>11}{test_speaker:>11}")
    found = {}
    for name, answer in answers.items():
        right = [float(np.mean(answer[part] == recordings.digits[part])) for part in parts]
        found[name.split()[-1]] = right[2]
        parameters = f"{fnn.count(run.params)}" if name == "network" else ""
        print(f"{name:18}{parameters:>11}{right[0]:9.4f}{right[1]:11.4f}{right[2]:11.4f}")

    digits = [str(digit) for digit in range(10)]
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (recordings.digits[parts[2]], answers["network"][parts[2]]), 1)
    pictures = {
        "learning_curves": fnn.plot.learning_curves(history),
        "confusion": fnn.plot.confusion(counts, digits),
        "spectrograms": spectrograms(heard, recordings.digits, answers["network"], parts[2]),
    }
    if strings:
        reader = network(features, strings=True)
        draw = np.random.default_rng(seed)
        amounts = (count, count // 4, count // 4)
        sets = [spoken.glue(recordings, part, max(32, amount), draw) for part, amount in zip(parts, amounts)]
        batches = [
            ({"frames": glued.heard.frames, "lengths": glued.heard.lengths},
             {"labels": glued.labels, "lengths": glued.heard.lengths // spoken.POOLED}) for glued in sets
        ]  # fmt: skip
        known = {name: run.params[name] for name in ("strokes", "memory")}
        print(f"\n{len(sets[0].parts)} strings to train on, {len(sets[2].parts)} to test")
        run, _ = train(
            reader, ctc, *batches[:2], epochs=epochs, key=fnn.fold(key, "strings"), params=known
        )  # fmt: skip
        said = [recordings.digits[part].tolist() for part in sets[2].parts]
        scores = np.asarray(fnn.predict(reader, run.params, run.state, *sets[2].heard))
        spelled = [spoken.spell(row, length // spoken.POOLED) for row, length in zip(scores, sets[2].heard.lengths)]
        total = sum(map(len, said))
        found["strings"] = sum(map(spoken.edits, spelled, said)) / total
        for name, answer in answers.items():
            wrong = sum(int(np.sum(answer[part] != recordings.digits[part])) for part in sets[2].parts)
            found[f"strings, {name.split()[-1]}"] = wrong / total
        whole = np.mean([one == other for one, other in zip(spelled, said)])
        print(f"digit error rate on strings of {test_speaker}: {found['strings']:.4f}; {whole:.1%} of the strings are "
              f"right\ntold where each digit begins and ends: network {found['strings, network']:.4f}, nearest "
              f"centroid {found['strings, centroid']:.4f}")  # fmt: skip
        pictures["string"] = one_string(sets[2].heard, scores, said, spelled)

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"\npictures: {folder}/{'.png, '.join(pictures)}.png")
    print(f"test accuracy on {test_speaker}: {found['network']:.4f}, nearest centroid {found['centroid']:.4f}")
    return found


def spectrograms(heard: spoken.Heard, digits: np.ndarray, answers: np.ndarray, rows: np.ndarray) -> Figure:
    """One recording of each digit by the test speaker, a wrong one where there is one, and what the network heard."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for digit, axes in enumerate(figure.subplots(2, 5, sharex=True, sharey=True).flat):
        mine = rows[digits[rows] == digit]
        wrong = mine[answers[mine] != digit]
        row = (wrong if len(wrong) else mine)[0]
        axes.imshow(
            heard.frames[row, : heard.lengths[row]].T, origin="lower", aspect="auto", cmap="magma", vmin=-2.5, vmax=2.5,
            extent=(0, spoken.HOP * heard.lengths[row] / spoken.RATE, 0, spoken.BANDS),
        )  # fmt: skip
        axes.set_facecolor("0.93")
        colour = "black" if answers[row] == digit else "tab:red"
        axes.set_title(f"said {digit}, heard {answers[row]}", color=colour, fontsize=10)
    figure.axes[0].set_xlim(0, 0.7)
    figure.suptitle("one recording of each digit by the test speaker: one that was misheard where there is one")
    figure.supxlabel("seconds", fontsize=10)
    figure.supylabel("mel band", fontsize=10)
    return figure


def one_string(heard: spoken.Heard, logits: np.ndarray, said: list[list[int]], spelled: list[list[int]]) -> Figure:
    """The spectrogram of the longest string, and how sure the network is of each digit at each step."""
    row = max(range(len(said)), key=lambda number: (len(said[number]), heard.lengths[number]))
    length = heard.lengths[row]
    seconds = spoken.HOP * length / spoken.RATE
    chances = np.asarray(jax.nn.softmax(logits[row, : length // spoken.POOLED], axis=-1))
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.imshow(
        heard.frames[row, :length].T, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, spoken.BANDS)
    )
    above.set(ylabel="mel band", title=f"said {' '.join(map(str, said[row]))}, read {' '.join(map(str, spelled[row]))}")
    times = (np.arange(len(chances)) + 0.5) * spoken.POOLED * spoken.HOP / spoken.RATE
    below.plot(times, chances[:, 0], color="0.7", label="blank")
    for digit in sorted({*said[row], *spelled[row]}):
        below.plot(times, chances[:, digit + 1], ".-", label=str(digit))
    below.set(xlabel="seconds", ylabel="probability", xlim=(0, seconds), ylim=(-0.03, 1.03))
    below.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", action="store_true", help="go on to strings of digits, with CTC")
    parser.add_argument("--validation-speaker", default="theo", choices=spoken.SPEAKERS)
    parser.add_argument("--test-speaker", default="yweweler", choices=spoken.SPEAKERS)
    parser.add_argument("--epochs", type=int, default=12, help="passes over the recordings (default: 12)")
    parser.add_argument("--features", type=int, default=48, help="size of the GRU's state, each way (default: 48)")
    parser.add_argument("--takes", type=int, default=spoken.TAKES, help="recordings of each digit by each speaker")
    parser.add_argument("--count", type=int, default=1200, help="strings to learn from (default: 1200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/speech_digits", help="folder of the pictures")
    try:
        main(**vars(parser.parse_args()))
    except (files.DatasetError, ValueError) as error:
        sys.exit(str(error))
