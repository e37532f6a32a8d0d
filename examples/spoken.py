"""Spoken digits for the speech example: the recordings of the Free Spoken Digit Dataset."""

import io
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
from files import damaged, find_unchecked, read_members

RATE = 8000  # samples of a second
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = 50  # recordings of each digit by each speaker
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
