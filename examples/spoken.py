"""Spoken digits for the speech example: recordings of the Free Spoken Digit Dataset, spectrograms and strings."""

import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from files import damaged, find_unchecked, read_members

RATE = 8000  # samples of a second
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = 50  # recordings of each digit by each speaker
FRAME, HOP, TRANSFORM, BANDS = 200, 80, 256, 40  # samples of 1/8000 s: frames of 25 ms, a new one every 10 ms
POOLED = 4  # frames that become one step of the recurrent layers
LONGEST_STRING = 2.4  # seconds
_FOLDER = "free-spoken-digit-dataset-1.0.10"
_ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz"


class Recordings(NamedTuple):
    """Digits, spoken one at a time.

    Attributes:
        waves: Sound pressure of each recording in [-1, 1), float32, `RATE` samples a second; lengths differ.
        digits: What was said, int32.
        speakers: By whom: places in `SPEAKERS`, int32.
    """

    waves: tuple[np.ndarray, ...]
    digits: np.ndarray
    speakers: np.ndarray


def load(takes: int = TAKES) -> Recordings:
    """Read the recordings, by digit, by speaker and by take.

    Args:
        takes: Only so many recordings of each digit by each speaker.

    Raises:
        DatasetError: when the archive is not on this machine, or does not hold what it should.
    """
    path = find_unchecked("fsdd", (f"{_FOLDER}.tar.gz", f"{_FOLDER}.tar.xz"), _ADDRESS)
    which = [(digit, who, take) for digit in range(10) for who in range(len(SPEAKERS)) for take in range(takes)]
    names = [f"{_FOLDER}/recordings/{digit}_{SPEAKERS[who]}_{take}.wav" for digit, who, take in which]
    waves = tuple(read_wave(path, name, content) for name, content in zip(names, read_members(path, names)))
    digits, speakers, _ = np.array(which, np.int32).T
    return Recordings(waves, digits, speakers)


def read_wave(path: Path, name: str, content: bytes) -> np.ndarray:
    """Decode one wav file of an archive: one channel of 16-bit samples, as float32 in [-1, 1)."""
    try:
        with wave.open(io.BytesIO(content)) as opened:
            found = (opened.getnchannels(), 8 * opened.getsampwidth(), opened.getframerate())
            count = opened.getnframes()
            data = opened.readframes(count)
    except (wave.Error, EOFError) as error:
        raise damaged(path, f"{name} cannot be read ({error or 'it is cut short'})", "a wav file") from error
    if found != (1, 16, RATE):
        told = f"{found[0]} channels of {found[1]} bits at {found[2]} Hz"
        raise damaged(path, f"{name} has {told}", f"1 channel of 16 bits at {RATE} Hz")
    if not count or len(data) != 2 * count:
        raise damaged(path, f"{name} has {len(data)} bytes of samples", f"{2 * count or 'some'}")
    return np.frombuffer(data, "<i2").astype(np.float32) / 2**15


# Sound as a picture


def mel_filters() -> np.ndarray:
    """Triangles that are equally wide on the mel scale: ``(frequencies, bands)``."""
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)
    corners = np.linspace(mel(60.0), mel(RATE / 2), BANDS + 2)
    places = mel(np.fft.rfftfreq(TRANSFORM, 1 / RATE))[:, None]
    width = corners[1] - corners[0]
    return np.maximum(0, 1 - np.abs(places - corners[1:-1]) / width).astype(np.float32)


class Heard(NamedTuple):
    """Log-mel spectrograms ``(recordings, frames, bands)``, and how many of the frames are sound."""

    frames: np.ndarray
    lengths: np.ndarray


@jax.jit
def log_mel(sound: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The spectrogram of one recording: each band has mean 0 over the real frames, so that loudness does not matter."""
    starts = HOP * jnp.arange((len(sound) - FRAME) // HOP + 1)
    frames = sound[starts[:, None] + jnp.arange(FRAME)] * jnp.hanning(FRAME)
    power = jnp.abs(jnp.fft.rfft(frames, TRANSFORM)) ** 2
    bands = jnp.log(power @ mel_filters() + 1e-5)
    count = jnp.clip((length - FRAME) // HOP + 1, POOLED, len(starts))
    real = (jnp.arange(len(starts)) < count)[:, None]
    bands = jnp.where(real, bands - jnp.sum(bands * real, axis=0) / count, 0)
    return bands / jnp.sqrt(jnp.sum(bands**2) / (count * BANDS)), count


def hear(waves: Sequence[np.ndarray], seconds: float) -> Heard:
    """The spectrograms of many recordings, padded or cut to so many seconds."""
    padded = np.zeros((len(waves), int(seconds * RATE)), np.float32)
    for row, sound in zip(padded, waves):
        row[: len(sound)] = sound[: len(row)]
    lengths = jnp.array([min(len(sound), padded.shape[1]) for sound in waves])
    return Heard(*map(np.asarray, jax.lax.map(lambda both: log_mel(*both), (padded, lengths), batch_size=64)))


# Strings of digits


class Strings(NamedTuple):
    """Strings of digits, glued together.

    Attributes:
        heard: Their spectrograms.
        labels: Digits plus 1, padded with 0, which is CTC's blank.
        parts: Of each, which recordings it was made of.
    """

    heard: Heard
    labels: np.ndarray
    parts: list[np.ndarray]


def glue(recordings: Recordings, rows: np.ndarray, count: int, draw: np.random.Generator) -> Strings:
    """Make strings of two to four digits by one speaker each, with a faint noise of 50 to 150 ms between them."""
    waves, labels, parts = [], np.zeros((count, 4), np.int32), []
    while len(parts) < count:
        who = draw.choice(recordings.speakers[rows])
        chosen = draw.choice(rows[recordings.speakers[rows] == who], draw.integers(2, 5))
        pieces = []
        for row in chosen:
            pause = draw.normal(0, 1e-3, draw.integers(RATE // 20, 3 * RATE // 20))
            pieces += [recordings.waves[row], pause.astype(np.float32)]
        sound = np.concatenate(pieces[:-1])
        if len(sound) <= LONGEST_STRING * RATE:
            labels[len(parts), : len(chosen)] = recordings.digits[chosen] + 1
            waves.append(sound)
            parts.append(chosen)
    return Strings(hear(waves, LONGEST_STRING), labels, parts)


def spell(logits: np.ndarray, steps: int) -> list[int]:
    """The digits of the best path: repeats merged, blanks dropped."""
    ids = logits[:steps].argmax(axis=-1)
    return (ids[(ids > 0) & (np.diff(ids, prepend=0) != 0)] - 1).tolist()


def edits(found: Sequence[int], said: Sequence[int]) -> int:
    """The least number of insertions, deletions and replacements between two strings (Levenshtein)."""
    costs = list(range(len(said) + 1))
    for number, one in enumerate(found, start=1):
        before, costs[0] = costs[0], number
        for place, other in enumerate(said, start=1):
            before, costs[place] = costs[place], min(costs[place] + 1, costs[place - 1] + 1, before + (one != other))
    return costs[-1]
