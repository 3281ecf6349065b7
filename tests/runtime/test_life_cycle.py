"""What happens to a generator besides sampling: closing under load, copies, a bundle that changes beneath it."""

from __future__ import annotations

import copy
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_path
from gensdk_runtime.errors import BackendError, InputError, IntegrityError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.fingerprint import measurement_key
from gensdk_runtime.plan.opening import open_choice
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.tuning import store
from support.another_os import WINDOWS
from support.cost_tables import store_costs, table_for
from support.models import MODELS, generator

DIGITS = "digits-dcgan"
ONE, TWO = Choice(threads=1), Choice(threads=1, workers=2)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """An embedded bundle as a file of its own."""
    source = embedded_path(DIGITS)
    assert source is not None
    return Path(shutil.copy(source, tmp_path / "copied.gsdk"))


def planned(path: Path | str, choices: list[Choice]) -> Generator:
    """A generator that splits its work by a table, over the real graphs."""
    bundle = Bundle.open(path)
    lineup = Runners({}, costs=table_for(choices), opener=lambda choice: open_choice(bundle, choice, "fp32"))
    return Generator(bundle.manifest.model, lineup, owned=bundle)


@pytest.mark.parametrize("wait", [0.0, 0.01, 0.05, 0.1])
def test_closing_ends_running_calls_properly(wait: float) -> None:
    sampling = planned(DIGITS, [ONE, TWO])
    expected = {n: sampling.sample(n, seed=5).data for n in (1, 3, 6, 9)}
    wrong: list[BaseException] = []
    ended: list[str] = []

    def work(order: random.Random) -> None:
        try:
            while True:
                n = order.choice([1, 3, 6, 9])
                np.testing.assert_array_equal(sampling.sample(n, seed=5).data, expected[n])
        except BackendError as failure:
            ended.append(str(failure))
        except BaseException as failure:
            wrong.append(failure)

    threads = [threading.Thread(target=work, args=(random.Random(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(wait)
    sampling.close()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len(ended) == 4
    assert all("was closed; load the bundle again" in text for text in ended)


def test_closing_while_the_pool_is_handed_work(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = planned(DIGITS, [TWO])
    sampling.sample(8, seed=0)
    plan = sampling._executor.runners.record

    def close_now(rounds):
        sampling.close()  # what another thread may do at this moment
        return plan(rounds)

    monkeypatch.setattr(sampling._executor.runners, "record", close_now)
    with pytest.raises(BackendError, match="closed; load the bundle again"):
        sampling.sample(8, seed=0)


@pytest.mark.parametrize("choices", [[ONE, TWO], [ONE, Choice(threads=2)]], ids=["workers", "second choice"])
def test_a_file_copied_over_an_open_bundle_breaks_no_size(choices: list[Choice], copied: Path) -> None:
    with planned(DIGITS, choices) as original:
        expected = {n: original.sample(n, seed=1).data for n in (1, 2, 9)}
    with planned(copied, choices) as sampling:
        np.testing.assert_array_equal(sampling.sample(1, seed=1).data, expected[1])
        other = embedded_path("digits-vae")
        assert other is not None
        shutil.copyfile(other, copied)  # as cp does: into the same file
        for n, data in expected.items():
            samples = sampling.sample(n, seed=1)
            np.testing.assert_allclose(samples.data, data, atol=1e-5)
        if choices[1].alone != ONE:
            assert "the bundle was changed since it was loaded" in samples.settings["fallback"]


def test_copies_and_pickles_are_loaded_from_the_same_path(copied: Path) -> None:
    with Generator.load(copied, backend="onnxruntime", threads=1) as first:
        expected = first.sample(5, seed=3)
        again = pickle.loads(pickle.dumps(first))
        double = copy.deepcopy(first)
    with again, double:
        for other in (again, double):
            assert other is not first
            np.testing.assert_array_equal(other.sample(5, seed=3).data, expected.data)
            assert other.sample(1, seed=3).settings["backend"] == "onnxruntime"


SPAWN = """
import multiprocessing, sys
from gensdk import Generator

def work(generator):
    return generator.sample(3, seed=2).data.sum()

if __name__ == "__main__":
    with Generator.load("digits-dcgan", backend="onnxruntime", threads=1) as generator:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(work, (generator,)) == work(generator))
"""


def test_a_generator_goes_to_a_spawned_process(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SPAWN)
    command = [sys.executable, str(tmp_path / "program.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_a_bundle_can_be_pickled(copied: Path) -> None:
    with Bundle.open(copied) as bundle, pickle.loads(pickle.dumps(bundle)) as again:
        assert again.manifest == bundle.manifest


@pytest.mark.skipif(WINDOWS, reason="files that are open can't be swapped")
def test_a_copy_of_another_bundle_at_the_same_path_is_refused(copied: Path) -> None:
    with Generator.load(copied, backend="onnxruntime") as first:
        data = pickle.dumps(first)
        other = embedded_path("digits-vae")
        assert other is not None
        copied.unlink()
        shutil.copyfile(other, copied)
        with pytest.raises(IntegrityError, match="another bundle lies there"):
            pickle.loads(data)


def test_what_can_not_be_pickled_says_so_in_one_line(copied: Path) -> None:
    closed = Generator.load(copied, backend="onnxruntime")
    closed.close()
    with generator(MODELS["feedforward"]()) as sessions:
        for each in (closed, sessions):
            with pytest.raises(InputError) as caught:
                pickle.dumps(each)
            assert "\n" not in str(caught.value)


def test_who_finds_another_process_measuring_starts_at_once_and_goes_over_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GENSDK_TUNE", "on")
    monkeypatch.setattr("gensdk_runtime.plan.runners.LOOK_EVERY", 0.0)
    monkeypatch.setattr(
        "gensdk_runtime.tuning.measurement.Measurement.run", lambda self: pytest.fail("it measured")
    )
    with Bundle.open(DIGITS) as bundle:
        key = measurement_key(bundle.manifest, "fp32", None)
    with store.measuring_this(key) as alone:
        assert alone
        waiting = Generator.load(DIGITS)  # as another process: the lock belongs to the open file
        samples = waiting.sample(6, seed=0)
        assert "another process is measuring" in samples.settings["fallback"]
        again = waiting.sample(6, seed=0)
        assert "another process is measuring" in again.settings["fallback"]
        store_costs(DIGITS, [ONE, TWO])
    with waiting:
        measured = waiting.sample(6, seed=0)
        assert "fallback" not in measured.settings
        assert waiting._executor.runners._choices() == (ONE, TWO)
        np.testing.assert_allclose(measured.data, samples.data, atol=1e-5)


def test_who_waits_in_vain_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GENSDK_TUNE", "on")
    monkeypatch.setattr("gensdk_runtime.plan.runners.LOOK_EVERY", 0.0)
    with Bundle.open(DIGITS) as bundle:
        key = measurement_key(bundle.manifest, "fp32", None)
    with store.measuring_this(key):
        waiting = Generator.load(DIGITS)
    with waiting:
        expected = waiting.sample(3, seed=0).data
        np.testing.assert_array_equal(waiting.sample(3, seed=0).data, expected)
        assert waiting._executor.runners._awaited is None


def test_errors_of_the_life_cycle_are_ours() -> None:
    closed = Generator.load(DIGITS, backend="onnxruntime")
    closed.close()
    closed.close()
    for n in (1, 40):
        with pytest.raises(BackendError, match="closed"):
            closed.sample(n)
