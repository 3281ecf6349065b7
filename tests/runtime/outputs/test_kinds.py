"""A kind of output and a kind of condition of another package: each a spec and a class, and nothing else."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import create_model

from gensdk.cli.sample import parse_conditions
from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.bench.latency_report import BenchSettings
from gensdk_runtime.bench.measure import Target, measure
from gensdk_runtime.conditions.base import conditions_of, register_condition
from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.outputs.base import Arrangement, output_of, register_output
from gensdk_runtime.proof.drift import sample_drift
from gensdk_runtime.proof.golden import Golden, Recorder, Trajectory, TrajectorySettings
from gensdk_runtime.proof.verify import check_golden
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.audio import AudioSpec
from gensdk_runtime.spec.kinds import CONDITIONS, OUTPUTS, ConditionSpec, OutputSpec
from gensdk_runtime.spec.manifest import FileEntry, Manifest
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import PointsSpec, TextSpec
from gensdk_runtime.spec.pianoroll import PianorollSpec, TrackSpec
from gensdk_runtime.spec.settings import TAKEN
from gensdk_runtime.spec.signature import GraphSpec
from support import notes
from support.models import feedforward_model, generator, tensor

LENGTH = 6


def model(*, tempo: bool = True) -> ModelSpec:
    inputs = [tensor("z", "noise", "batch", LENGTH, distribution="normal")]
    inputs += [tensor("tempo", "condition", "batch")] if tempo else []
    made = tensor("notes", "output", "batch", LENGTH, dtype="int64", value_range=(0.0, 127.0))
    return ModelSpec(
        name="tune",
        family="test",
        program=FeedforwardSpec(graph="composer"),
        graphs=(GraphSpec(name="composer", inputs=tuple(inputs), outputs=(made,)),),
        output=notes.NotesSpec(length=LENGTH),
        conditions=(notes.TempoSpec(fastest=180.0),) if tempo else (),
        max_batch=4,
    )


def composer(feeds: Feeds) -> dict[str, Any]:
    """Higher notes where z is, and where it is fast."""
    pitch = 64 + 10 * feeds["z"] + feeds["tempo"][:, None] / 10
    return {"notes": np.clip(np.rint(pitch), 0, 127).astype(np.int64)}


def opened() -> Generator:
    return generator(model(), {"composer": composer})


@pytest.mark.parametrize("parts", [(notes.NotesSpec, notes.Notes), (notes.TempoSpec, notes.Tempo)])
def test_a_kind_takes_less_than_forty_lines(parts: tuple[type, ...]) -> None:
    assert sum(len(inspect.getsource(part).splitlines()) for part in parts) < 40


def test_a_manifest_holds_it() -> None:
    files = {"composer": {"fp32": "graphs/composer.onnx"}}
    entries = {"graphs/composer.onnx": FileEntry(sha256="0" * 64, size=1)}
    manifest = Manifest(model=model(), graph_files=files, files=entries)
    data = json.loads(manifest.to_json())
    assert data["model"]["output"] == {"kind": "notes", "value_range": [0.0, 127.0], "length": LENGTH}
    assert data["model"]["conditions"] == [{"kind": "tempo", "fastest": 180.0}]
    assert Manifest.parse(json.dumps(data).encode(), what="x") == manifest
    data["model"]["conditions"][0]["fastst"] = 1
    with pytest.raises(ManifestError, match=r"model\.conditions\.0: unknown key 'fastst'; did you mean 'fastest'"):
        Manifest.parse(json.dumps(data).encode(), what="x")


@pytest.mark.parametrize("asked", [{}, {"tempo": 90.0}, {"tempo": np.linspace(60, 180, 11)}])
def test_samples_do_not_depend_on_their_batch(asked: dict[str, Any]) -> None:
    with opened() as tunes:
        whole = tunes.sample(11, seed=3, **asked)
        assert whole.array.dtype == np.int64
        assert whole.array.shape == (11, LENGTH)
        for size in (1, 3):
            np.testing.assert_array_equal(tunes.sample(11, seed=3, batch_size=size, **asked).array, whole.array)
        again = tunes.sample(settings=whole.settings)
        part = tunes.sample(settings=whole[2:5].settings)
    np.testing.assert_array_equal(again.array, whole.array)
    np.testing.assert_array_equal(part.array, whole.array[2:5])
    np.testing.assert_allclose(whole.settings["tempos"], whole.conditions["tempo"])


def test_a_condition_changes_what_is_made_and_is_checked() -> None:
    with opened() as tunes:
        slow, fast = (tunes.sample(5, seed=0, tempo=tempo).array for tempo in (10, 180))
        assert (slow < fast).all()
        for wrong in (0, 181, [1, 2]):
            with pytest.raises(InputError, match="expected a tempo up to 180"):
                tunes.sample(5, tempo=wrong)
        with pytest.raises(InputError, match="has no classes; leave label out"):
            tunes.sample(label=1)
    with (
        generator(feedforward_model()) as images,
        pytest.raises(InputError, match="keeps no time; leave tempo out"),
    ):
        images._sampling.sample(conditions={"tempo": 100})


def test_a_condition_of_a_command_line() -> None:
    assert parse_conditions(["tempo=90"], model()) == {"tempo": 90.0}
    with pytest.raises(InputError, match="has no classes; leave label out"):
        parse_conditions(["label=1"], model())
    with pytest.raises(InputError, match="tempo: can't read 'fast'"):
        parse_conditions(["tempo=fast"], model())
    with pytest.raises(InputError, match="takes no tempa; did you mean 'tempo'"):
        parse_conditions(["tempa=1"], model())


@pytest.fixture
def drawn() -> Samples:
    with opened() as tunes:
        return tunes.sample(3, seed=1, tempo=100)


def test_files_of_the_kind(drawn: Samples, tmp_path: Path) -> None:
    lines = drawn.save(tmp_path / "tunes.txt").read_text().splitlines()
    assert [list(map(int, line.split())) for line in lines] == drawn.array.tolist()
    with np.load(drawn.save(tmp_path / "tunes.npz")) as file:
        np.testing.assert_array_equal(file["array"], drawn.array)
        assert file["tempos"].tolist() == [100.0] * 3
    with pytest.raises(InputError, match=r"can't write notes to .*; use a file with one of \.txt, \.npz"):
        drawn.save(tmp_path / "tunes.png")
    assert repr(drawn).startswith(f"<Samples: 3 notes of {LENGTH}, of tune, from seed 1")


def test_what_is_for_other_kinds_is_refused(drawn: Samples) -> None:
    for attempt, message in (
        (lambda: drawn.images, "these samples are notes, not images; take notes, or array"),
        (lambda: drawn.points, "not points"),
        (drawn.picture, "notes have no picture"),
        (lambda: drawn.save("x.txt", layout="grid"), "are for images, and these are notes"),
        (lambda: opened().sample(output_type="uint8"), "notes, which have no bytes"),
        (lambda: opened().prepare(output_type="uint8", warm=False), "notes, which have no bytes"),
        (lambda: opened().translate(np.zeros((4, 4, 3), np.uint8)), "does not translate"),
    ):
        with pytest.raises(InputError, match=message):
            attempt()
    assert drawn._repr_png_() is None


@pytest.mark.parametrize(
    "spec",
    [
        AudioSpec(samples=8, sample_rate=8000),
        PianorollSpec(
            tracks=(TrackSpec(name="piano"),),
            lowest_pitch=60,
            pitches=12,
            steps_per_beat=4,
            beats_per_bar=4,
            bars=1,
        ),
        PointsSpec(dimensions=2),
        TextSpec.of(5, 10),
        notes.NotesSpec(length=LENGTH),
    ],
    ids=lambda spec: spec.kind,
)
def test_columns_and_scales_are_for_images(spec: OutputSpec, drawn: Samples) -> None:
    """Where samples are files, lines or a picture."""
    kind = output_of(spec)
    for arrangement in (Arrangement(columns=3), Arrangement(scale=2)):
        for attempt in (
            lambda: kind.picture(drawn, arrangement),  # noqa: B023 - called here
            lambda: kind.check_printed(arrangement),  # noqa: B023
            lambda: kind.check_target("x.npz", arrangement),  # noqa: B023
        ):
            with pytest.raises(InputError, match=r"columns and scale are for images|have no picture"):
                attempt()
        kind.check_printed(Arrangement())


def test_golden_trajectories_and_latencies() -> None:
    recorder = Recorder()
    with opened() as tunes:
        sessions = recorder.wrap(tunes.sessions)
        tempos = conditions_of(model())[0].examples(2)
        run = Trajectory(TrajectorySettings(seeds=(0, 1)), np.empty(0), (), {"tempo": tempos})
        made = Generator.from_sessions(model(), sessions).sample(**run.sample_arguments()).array
        golden = Golden((Trajectory(run.settings, made, recorder.take(), run.conditions),))
        (read,) = Golden.from_bytes(golden.to_bytes()).trajectories
        check_golden(model(), Golden((read,)))
        replayed = tunes.sample(**read.sample_arguments()).array
    assert read.calls[0].feeds["tempo"].tolist() == tempos.tolist()
    assert sample_drift(model(), read.samples, replayed).scaled == 0
    assert sample_drift(model(), read.samples, replayed + 1).scaled == pytest.approx(1 / 63.5)
    (case,) = measure([Target("tunes", opened, batch=2)], BenchSettings(warmup_ms=0, duration_s=0, iterations=2))
    assert case.subject.image == (LENGTH,)


def test_two_of_one_kind_are_an_error() -> None:
    class Other(notes.NotesSpec):
        kind: Literal["notes"] = "notes"

    class OtherTempo(notes.Tempo):
        Spec: ClassVar = notes.TempoSpec

    with pytest.raises(ValueError, match="two outputs of the kind 'notes'"):
        register_output(type("Others", (notes.Notes,), {"Spec": Other}))
    with pytest.raises(ValueError, match="two conditions of the kind 'tempo'"):
        register_condition(OtherTempo)
    assert OUTPUTS.spec("notes") is notes.NotesSpec
    assert CONDITIONS.spec("tempo") is notes.TempoSpec


@pytest.mark.parametrize("kind", [*sorted(TAKEN), "latent", "setting", "a b", "", "1st"])
def test_a_condition_that_could_not_be_asked_for_is_an_error(kind: str) -> None:
    """Its name is an argument of sample(), or what results call something else, or no name of an argument."""
    spec = create_model("Odd", __base__=ConditionSpec, kind=(Literal[kind], kind))
    with pytest.raises(ValueError, match="no condition can be called"):
        CONDITIONS.register(spec)
    assert kind not in CONDITIONS.names


PROGRAM = """
import sys
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.outputs.base import output_of
text = open(sys.argv[1], "rb").read()
try:
    model = Manifest.parse(text, what="x").model
    print(output_of(model.output).of_shape, model.conditions[0])
except Exception as failure:
    print(type(failure).__name__, failure)
"""


@pytest.mark.parametrize("installed", [True, False])
def test_the_package_that_brings_a_kind_is_found_where_it_is_installed(tmp_path: Path, installed: bool) -> None:
    """By its entry points; what lies in the working directory is not installed, and is not run."""
    site = tmp_path / "site"
    info = site / "notes-1.dist-info"
    info.mkdir(parents=True)
    (site / "notes_kinds.py").write_text(Path(notes.__file__).read_text() + "\nprint('loaded')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notes\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[gensdk.outputs]\nnotes = notes_kinds\n[gensdk.conditions]\ntempo = notes_kinds\n"
    )
    entries = {"graphs/composer.onnx": FileEntry(sha256="0" * 64, size=1)}
    manifest = Manifest(model=model(), graph_files={"composer": {"fp32": "graphs/composer.onnx"}}, files=entries)
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    where = tmp_path if installed else site
    paths = [str(site), *(path for path in sys.path if path)]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "manifest.json")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, check=True)
    if installed:
        assert done.stdout.splitlines() == ["loaded", "notes 6 kind='tempo' fastest=180.0"]
    else:
        assert done.stdout.startswith("ManifestError x: model.output: no output of the kind 'notes' is known")
        assert "install the package that brings it" in done.stdout
