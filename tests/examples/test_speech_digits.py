"""Digits are heard, in strings too, and speakers who choose or test are never learned from."""

import importlib
import io
import tarfile
import wave
from pathlib import Path

import jax
import numpy as np
import pytest

spoken = importlib.import_module("spoken")
speech_digits = importlib.import_module("speech_digits")
files = importlib.import_module("files")

ROOT = "free-spoken-digit-dataset-1.0.10"


def wav(samples: np.ndarray, *, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """A wav file."""
    written = io.BytesIO()
    with wave.open(written, "wb") as opened:
        opened.setnchannels(channels)
        opened.setsampwidth(width)
        opened.setframerate(rate)
        opened.writeframes(samples.astype("<i2").tobytes())
    return written.getvalue()


def tone(digit: int, speaker: int, take: int) -> np.ndarray:
    """A tone that tells the digit, a little higher for each speaker, with silence before and after."""
    time = np.arange(2000 + 200 * take) / 8000
    noise = np.random.default_rng(100 * digit + 10 * speaker + take).normal(0, 30, len(time))
    loud = (time > 0.05) & (time < 0.2)
    return 8000 * loud * np.sin(2 * np.pi * (200 * 1.35**digit + 5 * speaker) * time) + noise


def write(given: Path, takes: int = 2, *, name: str = f"{ROOT}.tar.xz", **changes: bytes) -> Path:
    """An archive of tones in the published format; ``changes`` replace recordings."""
    path = given / "fsdd" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:gz") as archive:
        for digit in range(10):
            for speaker, who in enumerate(spoken.SPEAKERS):
                for take in range(takes):
                    key = f"{digit}_{who}_{take}"
                    content = changes.get(f"x{key}", wav(tone(digit, speaker, take)))
                    member = tarfile.TarInfo(f"{ROOT}/recordings/{key}.wav")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", [f"{ROOT}.tar.xz", f"{ROOT}.tar.gz"])
def test_recordings_are_read_as_they_were_written(given: Path, name: str) -> None:
    write(given, 1, name=name)
    found = spoken.load(1)
    assert len(found.waves) == 60
    assert found.digits.tolist() == sorted(found.digits.tolist())
    assert found.speakers[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    np.testing.assert_allclose(found.waves[7], np.trunc(tone(1, 1, 0)) / 2**15, atol=2e-5)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "cannot be read"),
        (b"RIFX" + wav(np.ones(9))[4:], "cannot be read"),
        (wav(np.ones(9))[:30], "cannot be read"),
        (wav(np.ones(9), rate=16000), "1 channels of 16 bits at 16000 Hz, wanted 1 channel of 16 bits at 8000 Hz"),
        (wav(np.ones(9), channels=2), "2 channels"),
        (wav(np.ones(9))[:-4], "14 bytes of samples, wanted 18"),
        (wav(np.ones(0)), "0 bytes of samples, wanted some"),
    ],
)
def test_a_damaged_recording_is_named_with_what_is_wrong(given: Path, content: bytes, complaint: str) -> None:
    write(given, 1, x3_lucas_0=content)
    with pytest.raises(files.DatasetError, match=rf"tar\.xz: .*3_lucas_0\.wav .*{complaint}"):
        spoken.load(1)


def test_a_missing_archive_and_missing_recordings_are_told(given: Path) -> None:
    with pytest.raises(files.DatasetError, match=r"download https://.*by hand(.|\n)*FNN_DATA"):
        spoken.load(1)
    write(given, 1)
    with pytest.raises(files.DatasetError, match=r"it has no .*0_george_1\.wav"):
        spoken.load(2)


def test_the_real_recordings_are_whole(data_folder: Path) -> None:
    found = spoken.load()
    assert len(found.waves) == 3000
    assert sum(map(len, found.waves)) == pytest.approx(1312 * spoken.RATE, rel=1e-3)
    assert max(np.abs(sound).max() for sound in found.waves) <= 1


def test_a_tone_is_in_its_mel_band_and_padding_changes_nothing() -> None:
    time = np.arange(4000) / 8000
    sounds = [np.sin(2 * np.pi * 1000 * time[:size]).astype(np.float32) * loud for size, loud in ((2000, 1), (4000, 1))]
    sounds[0][:500] *= 0.1
    heard = spoken.hear(sounds, 0.5)
    assert heard.lengths.tolist() == [1 + (2000 - 200) // 80, 1 + (4000 - 200) // 80]
    assert (heard.frames[0, heard.lengths[0] :] == 0).all()
    alone = spoken.hear(sounds[:1], 0.25)
    np.testing.assert_allclose(alone.frames[0], heard.frames[0, : alone.frames.shape[1]], atol=1e-4)
    louder = heard.frames[0, 10] - heard.frames[0, 0]  # the tone, whose loudness rose
    centers = 700 * (10 ** (np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 4000 / 700), 42) / 2595) - 1)
    assert abs(centers[1:-1][louder.argmax()] - 1000) < 100
    assert spoken.mel_filters().shape == (129, 40)
    assert (spoken.mel_filters().sum(axis=0) > 0).all()


def test_strings_are_of_one_speaker_and_carry_their_digits(given: Path) -> None:
    write(given)
    recordings = spoken.load(2)
    rows = np.flatnonzero(recordings.speakers > 3)
    glued = spoken.glue(recordings, rows, 8, np.random.default_rng(0))
    for labels, part in zip(glued.labels, glued.parts):
        assert len({*recordings.speakers[part]}) == 1
        assert labels[labels > 0].tolist() == (recordings.digits[part] + 1).tolist()
        assert set(part) <= set(rows)
    assert len(glued.heard.frames) == 8


def test_the_best_path_is_spelled_and_edits_are_counted() -> None:
    path = [0, 3, 3, 0, 3, 1, 1, 5, 0]
    assert spoken.spell(np.eye(11)[path], 7) == [2, 2, 0]
    for found, said, wanted in (("", "12", 2), ("12", "12", 0), ("132", "12", 1), ("2", "12", 1), ("31", "12", 2)):
        assert spoken.edits([*map(int, found)], [*map(int, said)]) == wanted


def test_another_voice_has_other_bands_and_the_same_words(key: jax.Array) -> None:
    x = {"frames": np.random.default_rng(0).normal(size=(4, 12, 40)).astype(np.float32), "lengths": np.full(4, 12)}
    changed, digits = speech_digits.other_voice(key, (x, np.arange(4)))
    assert changed["frames"].shape == x["frames"].shape
    assert (np.abs(changed["frames"] - x["frames"]).mean(axis=(1, 2)) > 0.1).all()
    assert digits.tolist() == [0, 1, 2, 3]


def test_tones_are_told_apart_and_strings_go_on_from_there(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speech_digits, "LONGEST", 0.3)
    monkeypatch.setattr(spoken, "LONGEST_STRING", 1.2)
    write(given)
    found = speech_digits.main(strings=True, takes=2, epochs=6, features=8, count=16, output=tmp_path)
    assert found["centroid"] > 0.8
    assert found["network"] > 0.3  # a tenth is luck
    assert found["strings, centroid"] < 0.3
    assert 0 <= found["strings"] <= 3
    printed = capsys.readouterr().out
    assert printed.startswith(
        "80 recordings of 4 speakers to train on, 20 of theo to choose by, 20 of yweweler to test"
    )
    assert f"test accuracy on yweweler: {found['network']:.4f}" in printed
    for name in ("learning_curves", "confusion", "spectrograms", "string"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
