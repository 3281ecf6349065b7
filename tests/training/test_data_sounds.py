"""Sounds as training data: what is read, resampled, cut, padded and skipped; and hostile folders and archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.data.description import describe
from gensdk_training.data.feed import Feed
from gensdk_training.data.sound_set import SoundDataset
from gensdk_training.family import Family
from gensdk_training.registry import get_family
from gensdk_training.run import DataConfig
from support.sounds import packed, spoken, tar_of, tone, wav


def loaded(spec: object, **options: Any) -> SoundDataset:
    dataset = load_data(str(spec), **options)
    assert isinstance(dataset, SoundDataset)
    return dataset


def feed(dataset: SoundDataset, *, seed: int = 0, **options: Any) -> Feed:
    return Feed(dataset, seed=seed, batch_size=8, device=torch.device("cpu"), **options)


NAMES = {
    "auto": ("0-ann", "0-bo", "1-ann", "1-bo", "2-ann", "2-bo"),
    "digit": ("0", "1", "2"),
    "speaker": ("ann", "bo"),
    "none": None,
}


@pytest.mark.parametrize("labels", NAMES)
def test_spoken_digits_have_their_official_test_part(labels: str, tmp_path: Path) -> None:
    root = spoken(tmp_path / "recordings")
    train, test = (loaded(f"fsdd:{tmp_path}", split=split, labels=labels) for split in ("train", "test"))
    assert (len(train), len(test)) == (2 * 3 * 2, 2 * 3 * 5)
    assert not set(train.keys or ()) & set(test.keys or ())
    assert all(int(key.rsplit("_", 1)[1]) < 5 for key in test.keys or ())
    assert train.info.height == test.info.height == round(0.09 * 8000)
    assert train.info.class_names == NAMES[labels]
    whole = loaded(root, labels=labels)
    assert len(whole) == len(train) + len(test)
    assert "files are named as in fsdd: write fsdd:PATH for its official test part" in whole.findings.notes


def test_classes_are_made_of_parts_that_can_be_embedded_apart(tmp_path: Path) -> None:
    train = loaded(f"fsdd:{spoken(tmp_path)}")
    audio, names = train.info.require_audio(), train.info.class_names or ()
    assert [part.name for part in audio.parts] == ["digit", "speaker"]
    assert [part.values for part in audio.parts] == [NAMES["digit"], NAMES["speaker"]]
    assert audio.numbers_of(names) == ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    chosen = loaded(f"fsdd:{tmp_path}", only=["2-bo", "1-ann"])
    assert chosen.info.class_names == ("1-ann", "2-bo")
    assert audio.numbers_of(chosen.info.class_names) == ((1, 0), (2, 1))
    with pytest.raises(InputError, match="class 'x' is not made of digit, speaker"):
        audio.numbers_of(["x"])
    with pytest.raises(InputError, match="have no parts"):
        loaded(tmp_path, labels="digit").info.require_audio().numbers_of(["0"])


def test_an_archive_is_the_folder_that_was_packed(tmp_path: Path) -> None:
    folder = spoken(tmp_path / "recordings")
    archive = packed(folder, tmp_path / "fsdd.tar.gz")
    one, other = loaded(f"fsdd:{folder}"), loaded(f"fsdd:{archive}")
    assert one.fingerprint == other.fingerprint
    assert one.keys == other.keys
    assert loaded("fsdd", data_dir=tmp_path).fingerprint == one.fingerprint
    assert loaded(archive).info.name == "fsdd"
    assert load_data(str(folder), seconds=0.05).fingerprint != one.fingerprint


def test_batches_are_padded_and_cut_and_say_how_long_each_is(tmp_path: Path) -> None:
    data = loaded(spoken(tmp_path), seconds=0.05)
    assert data.info.height == 400
    batch = data.batch(np.arange(len(data)))
    assert batch.images.shape == (len(data), 400, 1)
    assert batch.lengths is not None
    np.testing.assert_array_equal(batch.lengths, np.minimum(data.lengths, 400))
    for sound, length, whole in zip(batch.images, batch.lengths, data.sounds, strict=True):
        np.testing.assert_array_equal(sound[:length], whole[:length])
        assert not sound[length:].any()
    tensors = feed(data).batch(0)
    assert tensors.images.dtype == torch.float32
    assert tensors.images.shape == (8, 400, 1)
    assert tensors.lengths is not None
    assert tensors.mask.sum(dim=1).tolist() == tensors.lengths.tolist()
    assert not tensors.images[~tensors.mask].any()


def test_long_sounds_are_cut_anywhere_by_seed_and_place_alone(tmp_path: Path) -> None:
    data = loaded(spoken(tmp_path, takes=1), seconds=0.01)
    first, again, other = (feed(data, seed=seed).batch(5).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    parts = [feed(data, seed=1, rank=rank, processes=2).batch(5).images for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), first), "however many processes there are"
    starts = set()
    for number in range(10):
        batch = feed(data, seed=1).batch(number)
        assert batch.indices is not None
        for sound, index in zip(batch.images.numpy(), batch.indices.tolist(), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(data.sounds[index][:, 0], 80)
            starts |= set(np.flatnonzero((windows == sound[:, 0]).all(axis=1)).tolist())
    assert len(starts) > 30
    assert max(starts) <= 240 - 80


def test_what_was_done_to_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(0.2, rate=16000, channels=2), 16000))
    (tmp_path / "b.wav").write_bytes(wav(tone(0.1)))
    (tmp_path / "c.WAV").write_bytes(wav(tone(0.1, level=0.0)))
    (tmp_path / "cut.wav").write_bytes(wav(tone(0.1))[:-10])
    (tmp_path / "notes.txt").write_text("no sound")
    data = loaded(tmp_path, seconds=0.15)
    assert (data.info.require_audio().sample_rate, len(data), data.info.num_classes) == (8000, 3, None)
    told = "\n".join(describe(data).lines())
    for text in (
        "3 sounds of 0.15 s (1200 samples) at 8000 Hz, 1 channel",
        "0.10 to 0.20 s",
        "1 sounds: 2 channels to 1, their mean",
        "1 sounds: 16000 Hz to 8000 Hz, resampled",
        "1 sounds are silent",
        "1 sounds are longer than 0.15 s: parts of them, anywhere, are trained on",
        "2 sounds are shorter than 0.15 s: silence follows",
        "1 files: it is cut: it says 1600 bytes of samples",
        "1 files: .txt",
        "classes   none",
    ):
        assert text.replace("1 files: .txt", ".txt (1)") in told
    assert len(data.sounds[0]) == 1600
    np.testing.assert_allclose(data.sounds[0][200:-200], tone(0.2)[200:-200], atol=1e-3)
    fast = loaded(tmp_path, sample_rate=16000)
    assert fast.info.height == 3200


@pytest.mark.parametrize("layout", ["classes", "splits"])
def test_folders_are_classes_or_splits(layout: str, tmp_path: Path) -> None:
    tops = ("train", "test") if layout == "splits" else ("yes", "no")
    for top in tops:
        for word in ("up", "down") if layout == "splits" else (".",):
            folder = tmp_path / top / word
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(2):
                (folder / f"x{number}.wav").write_bytes(wav(tone(0.05)))
    data = loaded(tmp_path)
    assert data.info.class_names == (("down", "up") if layout == "splits" else ("no", "yes"))
    assert len(data) == 4
    if layout == "splits":
        assert data.findings.split == "train: the folder train/, beside test/"
    held = loaded(tmp_path / tops[0], holdout=0.5, split="test", labels="none")
    assert len(held) == (2 if layout == "splits" else 1)


def folder_of(*files: tuple[str, bytes]) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.mkdir()
        for name, data in files:
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(data)
        return path

    return make


def archive_of(name: str = "a.wav", data: bytes = b"", *, cut: int = 0, **fields: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        target = tar_of([(info, data)], path.with_suffix(".tar.gz"))
        if cut:
            target.write_bytes(target.read_bytes()[:-cut])
        return target

    return make


def huge_header(path: Path) -> Path:
    """A member that claims 2 GiB, with nothing behind it."""
    info = tarfile.TarInfo("a.wav")
    info.size = 2 << 30
    path = path.with_suffix(".tar")
    path.write_bytes(info.tobuf() + bytes(10240))
    return path


def huge_name(path: Path) -> Path:
    """A name that claims 1 GiB, which tarfile would read into memory."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    path = path.with_suffix(".tar")
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    return path


def no_archive(path: Path) -> Path:
    path.with_suffix(".tar.gz").write_bytes(SOUND)
    return path.with_suffix(".tar.gz")


SOUND = wav(tone(0.05))
LONG = wav(np.zeros((40000, 1), np.float32), 1000)
WRONG = {
    "no sound in an archive": (archive_of("a.txt", b"x"), {}, "expected WAV or FLAC files, and there is none"),
    "broken ones alone": (folder_of(("a.wav", b"RIFF")), {}, r"none of its 1 can be read \(it is no WAV nor FLAC"),
    "a link in an archive": (archive_of(type=tarfile.SYMTYPE, linkname="/etc/passwd"), {}, "it is no plain file"),
    "a cut archive": (archive_of(data=SOUND, cut=60), {}, "no whole tar archive"),
    "an archive that is none": (no_archive, {}, "no whole tar archive"),
    "a huge member": (huge_header, {}, r"no whole tar archive|larger than 64 MiB"),
    "a huge name": (huge_name, {}, "no whole tar archive .*a header in it is too large"),
    "more than fits": (folder_of(("a.wav", SOUND)), {"memory_limit": 1000}, "over 0 MiB of samples"),
    "too long": (folder_of(("a.wav", LONG)), {}, "its longest sound has 40.0 s; say .*--seconds"),
    "beside classes": (folder_of(("a.wav", SOUND), ("up/b.wav", SOUND)), {}, "lies beside the class folders"),
    "other labels": (folder_of(("a.wav", SOUND)), {"labels": "digit"}, "expected labels auto or none"),
    "images' options": (folder_of(("a.wav", SOUND)), {"size": 8}, "are for images"),
    "three channels": (folder_of(("a.wav", SOUND)), {"channels": 3}, "trained on as one channel"),
    "no rate": (folder_of(("a.wav", SOUND)), {"sample_rate": 1}, "expected a sample rate of 1000 to"),
    "no time": (folder_of(("a.wav", SOUND)), {"seconds": 0.0}, "expected seconds over 0"),
    "inputs": (folder_of(("a.wav", SOUND)), {"inputs": "digits"}, "of these data are sounds; leave inputs out"),
    "no test": (folder_of(("a.wav", SOUND)), {"split": "test"}, "the test part of 1 images is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_can_t_be_trained_on_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, options, message = WRONG[name]
    with pytest.raises(InputError, match=message) as refusal:
        load_data(str(make(tmp_path / "data")), **options)
    assert len(str(refusal.value).splitlines()) == 1


def test_an_archive_does_not_unfold_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tarfile.TarInfo("zeros.bin")
    info.size = 40 << 20
    bomb = tar_of([(info, bytes(info.size)), (tarfile.TarInfo("end.bin"), b"")], tmp_path / "bomb.tar.gz")
    assert bomb.stat().st_size < 1 << 18
    monkeypatch.setattr("gensdk_training.data.sound_sources.MAX_UNPACKED", 1 << 20)
    with pytest.raises(InputError, match=r"no whole tar archive .*it unfolds to over"):
        load_data(str(bomb))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 0.1}, "fsdd has its own test split"),
        ({"labels": "take"}, "expected labels auto, none, digit or speaker"),
    ],
)
def test_what_spoken_digits_don_t_have_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_data(f"fsdd:{spoken(tmp_path)}", **options)


def test_spoken_digits_that_are_none_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSDK_DATA_DIR", raising=False)
    for spec, message in (
        ("fsdd", "where is it"),
        (f"fsdd:{tmp_path / 'no'}", "no folder or .tar.gz"),
        (f"fsdd:{folder_of(('a.wav', SOUND))(tmp_path / 'other')}", "expected files DIGIT_SPEAKER_TAKE"),
        (f"fsdd:{spoken(tmp_path / 'few', takes=5)}", "nothing is of the train part"),
    ):
        with pytest.raises(InputError, match=message):
            load_data(spec)
    with pytest.raises(InputError, match="expected sounds, but 'digits' are images"):
        load_data("digits", seconds=1.0)
    monkeypatch.setenv("GENSDK_DATA_DIR", str(tmp_path))
    spoken(tmp_path / "fsdd" / "recordings")
    assert len(loaded("fsdd")) == 12


def test_families_of_images_refuse_sounds(tmp_path: Path) -> None:
    data = loaded(spoken(tmp_path))
    kind: type[Family[Any]] = get_family("vae")
    with pytest.raises(InputError, match=r"vae makes images, but '.*' are sounds"):
        kind(kind.Config(), data.info)
    for attempt in (data.info.require_points, lambda: data.info.image):
        with pytest.raises(InputError, match="are sounds; use other data"):
            attempt()
    assert data.info.output.kind == "audio"


def test_a_run_keeps_how_sounds_were_brought_into_form(tmp_path: Path) -> None:
    config = DataConfig(source=str(spoken(tmp_path)), sample_rate=4000, seconds=0.02)
    data = DataConfig.from_json(config.to_json(), what="x").load()
    assert (data.info.height, data.info.require_audio().sample_rate) == (80, 4000)
    taken = data.take(np.array([3, 1]))
    assert taken.keys == tuple((data.keys or ())[at] for at in (3, 1))
    assert taken.fingerprint != data.fingerprint
    assert io.StringIO(config.to_json()).read()
