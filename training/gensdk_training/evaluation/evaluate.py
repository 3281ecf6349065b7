"""Evaluating a bundle: samples through the runtime, every measure beside its floor, and the pictures behind
them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.generator import Generator
from gensdk_runtime.host.user_cache import cache_folder
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import check_options
from gensdk_training.data.dataset import Images
from gensdk_training.evaluation.evaluation_report import EvaluationReport, ExtractorInfo, Measure
from gensdk_training.evaluation.labels import chosen_of
from gensdk_training.evaluation.measures import (
    FEATURE_METRICS,
    LOGIT_METRICS,
    METRICS,
    MUSIC_METRICS,
    PROMPT_METRICS,
    TEXT_METRICS,
    TRANSFER_METRICS,
    Readings,
    answer_measures,
    class_counts,
    feature_measures,
    memorization_measures,
    path_measures,
)
from gensdk_training.evaluation.music_models import evaluate_music
from gensdk_training.evaluation.point_models import evaluate_points
from gensdk_training.evaluation.prompts import matching_measures, why_no_matching
from gensdk_training.evaluation.result import Asked, Evaluation, Pictures, Say
from gensdk_training.evaluation.sound_models import evaluate_sounds
from gensdk_training.evaluation.subject import Reference, data_of, draw, open_bundle, open_reference
from gensdk_training.evaluation.telling import PROBED, why_it_cant_tell
from gensdk_training.evaluation.text_models import evaluate_texts
from gensdk_training.evaluation.transfer_models import evaluate_transfers
from gensdk_training.metrics.classifier import ClassifierSettings, LabelledImages, cached_classifier
from gensdk_training.metrics.extractor import ClassifierExtractor, Extractor, ExtractorOptions, OnnxExtractor
from gensdk_training.metrics.manifold import realism
from gensdk_training.metrics.matcher import CaptionedImages, MatcherSettings, cached_matcher
from gensdk_training.metrics.neighbours import MemorizationReport, Neighbours, memorization, nearest_images
from gensdk_training.metrics.paths import PAIRS, PathCurve, path_curve
from gensdk_training.run_config import DataConfig

COUNT = 5000
CLASSIFIER = ClassifierSettings()
"""How the classifier is trained that makes the features where no extractor is given."""
MATCHER = MatcherSettings()
"""How the matcher of texts and images is trained."""
COMPARED = 1000
"""Samples, and test images, whose neighbours are looked for."""
SHOWN, PAIRED, RANKED = 64, 16, 16
"""Samples, nearest pairs, and worst and best samples that the page shows."""
_GIVE = "give an extractor (--extractor FILE.onnx)"
PACKAGES = ("gensdk", "torch", "numpy")
OF_KIND = {
    "audio": evaluate_sounds,
    "pianoroll": evaluate_music,
    "points": evaluate_points,
    "text": evaluate_texts,
}
"""How models are measured whose output is of another kind than images."""
OF_PROMPTS = {"text": evaluate_transfers}
"""The same of models that are made from a prompt."""


@dataclass(frozen=True)
class _Copies:
    report: MemorizationReport
    neighbours: Neighbours


def evaluate(
    bundle: str,
    source: str,
    *,
    count: int = COUNT,
    seed: int = 0,
    metrics: Sequence[str] | None = None,
    extractor: str | None = None,
    onnx: ExtractorOptions | None = None,
    data: DataConfig | None = None,
    backend: str = "auto",
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    say: Say = lambda line: None,
) -> Evaluation:
    """Measures `count` samples of `bundle` from `seed` against the data `source` (see :func:`load_data`).

    `metrics`: names of :data:`METRICS`, None: all that are possible. `extractor`: an ONNX file, used as `onnx`
    says; None: a classifier of the labelled training images, trained here and kept in the user's cache. `data`:
    how the data is split and cut; None: as in the model's own training. `options`: those of
    :meth:`Generator.sample`, where they are not the bundle's. `say` is called with a few words as each stage
    begins.

    Raises :class:`InputError` for a model of another kind, data that does not fit or has no test part, unknown
    metrics and such that need what is not there; BundleError and BackendError as sampling does.
    """
    started = time.monotonic()
    wanted = _wanted(metrics)
    with open_bundle(bundle) as opened:
        manifest = opened.manifest
        check_options(manifest.model.program.kind, options or {})  # before a classifier is trained
        prompted = manifest.model.condition("prompt") is not None
        own = (OF_PROMPTS if prompted else OF_KIND).get(manifest.model.output.kind)
        if own is not None:
            asked = Asked(wanted, count, seed, backend, progress, say, started, options or {})
            return own(opened, data or data_of(manifest, source), asked, named=metrics is not None)
        if metrics is not None and (strange := sorted(wanted & set(MUSIC_METRICS))):
            raise InputError(f"can't measure {', '.join(strange)} of images; they are for music")
        reference = open_reference(manifest.model, data or data_of(manifest, source))
        try:
            unmatched = why_no_matching(manifest.model, reference.train, reference.prompts)
            if metrics is not None and unmatched and (ranked := sorted(wanted & set(PROMPT_METRICS))):
                raise InputError(f"can't measure {', '.join(ranked)}: {unmatched}")
            judged = extractor is not None or wanted & {*FEATURE_METRICS, *LOGIT_METRICS}
            judge, why_not = _extractor(reference, extractor, onnx, say) if judged else (None, "")
            _check_possible(metrics, wanted, judge, why_not)
            asked = Asked(wanted, count, seed, backend, progress, say, started, options or {})
            return _measure(opened, reference, judge, why_not, asked)
        finally:
            reference.close()


def _measure(
    bundle: Bundle, reference: Reference, judge: Extractor | None, why_not: str, asked: Asked
) -> Evaluation:
    model = bundle.manifest.model
    with Generator.load(bundle, backend=asked.backend) as generator:
        asked.say(f"drawing {asked.count} samples")
        drawn = draw(generator, reference, asked.count, asked.seed, progress=asked.progress, **asked.options)
        curve = _path(generator, reference, asked) if "path" in asked.wanted else None
    rows: list[Measure] = []
    readings, info, order = None, None, np.arange(0)
    samples = drawn.samples
    if judge is not None:
        asked.say(f"measuring with {judge.name}")
        train = reference.training_sample(asked.count, asked.seed)
        readings = Readings(*(judge.read(x) for x in (samples.images, train, reference.test_images)))
        rows += feature_measures(asked.wanted, readings)
        rows += answer_measures(asked.wanted, readings, drawn.labels, reference.test_labels)
        order = np.argsort(realism(readings.test.features, readings.samples.features), kind="stable")
        info = _info(judge, readings, reference)
    rows += _matching(samples.images, reference, model, asked)
    copies = None
    if "memorization" in asked.wanted:
        asked.say(f"looking for the nearest of {len(reference.train)} training images and their mirror images")
        copies = _copies(samples.images, reference)
        rows += memorization_measures(copies.report)
    if curve is not None:
        told = model.num_classes is not None or reference.sounds is not None or reference.prompts is not None
        rows += path_measures(curve, reference.test_images, reference.test_labels if told else None)
    pictures = Pictures(
        samples=samples.images[:SHOWN],
        nearest=_pairs(samples.images, reference, copies),
        worst=samples.images[order[:RANKED]],
        best=samples.images[order[::-1][:RANKED]],
    )
    height, width, channels = reference.test_images.shape[1:]
    settings = {k: v for k, v in samples.settings.items() if k not in ("seeds", "labels", "audios", "prompts")}
    report = EvaluationReport(
        model=model.name,
        family=model.family,
        data=reference.train.info.name,
        samples=len(samples),
        seed=asked.seed,
        labels=reference.told,
        image=(height, width, channels),
        train_count=len(reference.train),
        test_count=len(reference.test),
        extractor=info,
        measures=tuple(rows),
        classes=class_counts(readings, reference.test.info.class_names)
        if readings and "modes" in asked.wanted
        else (),
        memorization=copies.report.to_dict() if copies else {},
        path=curve.to_dict() if curve else {},
        notes=tuple(_notes(bundle, reference, why_not, curve is None and "path" in asked.wanted)),
        settings=settings,
        seconds=time.monotonic() - asked.started,
        versions={name: version(name) for name in PACKAGES},
    )
    return Evaluation(report, pictures)


def _matching(samples: Images, reference: Reference, model: ModelSpec, asked: Asked) -> list[Measure]:
    """The measures of samples and the texts that they were made from; none where these can't be ranked."""
    draw, captions = reference.prompts, reference.train.captions
    if draw is None or captions is None or not asked.wanted & set(PROMPT_METRICS):
        return []
    if why_no_matching(model, reference.train, draw):
        return []
    asked.say("training a matcher of texts and images, or taking the one that was kept")
    matcher = cached_matcher(CaptionedImages.of(reference.train), cache_folder("matchers"), MATCHER)
    chosen = chosen_of(reference.train, asked.count, asked.seed)
    return matching_measures(
        matcher,
        samples,
        draw.places(len(samples), asked.seed),
        draw,
        test=reference.test_images,
        train=(reference.training_sample(asked.count, asked.seed), captions.take(chosen).texts),
    )


def _wanted(metrics: Sequence[str] | None) -> frozenset[str]:
    for name in metrics or ():
        if name not in METRICS:
            raise InputError(f"no metric {name[:80]!r}{did_you_mean(name, METRICS)}")
    return frozenset(METRICS if metrics is None else metrics)


def _extractor(
    reference: Reference, extractor: str | None, onnx: ExtractorOptions | None, say: Say
) -> tuple[Extractor | None, str]:
    """The extractor, or why there is none."""
    height, width, channels = reference.test_images.shape[1:]
    probe = reference.training_sample(PROBED, 0)
    if extractor is not None:
        judge = OnnxExtractor(extractor, (height, width, channels), onnx)
        if reason := why_it_cant_tell(judge, reference.test_images, probe, None):
            raise InputError(f"the extractor {judge.name} is of no use here: {reason}; are its options right?")
        return judge, ""
    if reference.test_labels is None:
        return None, f"the data has no labels to train a classifier on; {_GIVE}"
    if (reference.train.info.num_classes or 0) < 2:
        return None, f"the data has a single class, and a classifier of it would know nothing; {_GIVE}"
    say("training a classifier of the data, or taking the one that was kept")
    labelled = LabelledImages.of(reference.train)
    own = ClassifierExtractor(cached_classifier(labelled, cache_folder("classifiers"), CLASSIFIER))
    if reason := why_it_cant_tell(own, reference.test_images, probe, reference.test_labels):
        return None, f"a classifier of the data was trained, and {reason}; {_GIVE}"
    return own, ""


def _check_possible(
    asked: Sequence[str] | None, wanted: frozenset[str], judge: Extractor | None, why_not: str
) -> None:
    """Raises :class:`InputError` if a metric that was named is impossible; of "all", impossible ones are left out,
    with a note."""
    if asked is not None and (of_text := sorted(wanted & {*TEXT_METRICS, *TRANSFER_METRICS})):
        raise InputError(f"can't measure {', '.join(of_text)} of images; leave it out")
    impossible = sorted(wanted & {*FEATURE_METRICS, *LOGIT_METRICS}) if judge is None else []
    if asked is not None and impossible:
        raise InputError(f"can't measure {', '.join(impossible)}: {why_not}")


def _info(judge: Extractor, readings: Readings, reference: Reference) -> ExtractorInfo:
    logits, truth = readings.test.logits, reference.test_labels
    known = logits is not None and truth is not None and int(truth.max()) < logits.shape[1]
    accuracy = float((logits.argmax(axis=1) == truth).mean()) if known and logits is not None else None
    return ExtractorInfo(
        name=judge.name, resizing=judge.resizing, feature_count=judge.feature_count, accuracy=accuracy
    )


def _copies(samples: Images, reference: Reference) -> _Copies:
    """Both searches in one pass over the training images."""
    own, tests = samples[:COMPARED], reference.test_images[:COMPARED]
    found = nearest_images(np.concatenate((own, tests)), reference.training_parts())
    mine, theirs = (
        Neighbours(found.index[part], found.distance[part], found.flipped[part])
        for part in (slice(len(own)), slice(len(own), None))
    )
    return _Copies(memorization(mine, theirs), mine)


def _pairs(samples: Images, reference: Reference, copies: _Copies | None) -> Images:
    """The samples that are nearest to training images, each with the image behind it."""
    if copies is None:
        return samples[:0]
    pictures = []
    for i in np.argsort(copies.neighbours.distance, kind="stable")[:PAIRED]:
        near = reference.training_image(int(copies.neighbours.index[i]))
        pictures += [samples[i], near[:, ::-1] if copies.neighbours.flipped[i] else near]
    return np.stack(pictures)


def _path(generator: Generator, reference: Reference, asked: Asked) -> PathCurve | None:
    """None for a model without a latent."""
    shape = generator.latent_shape
    if shape is None:
        return None
    how: dict[str, Any] = {"seed": asked.seed, "output_type": "uint8", "progress": False}
    how |= {**reference.asked(PAIRS, asked.seed), **asked.options}
    return path_curve(lambda z: generator.sample(len(z), latents=z, **how).images, shape, seed=asked.seed)


def _notes(bundle: Bundle, reference: Reference, why_not: str, no_path: bool) -> list[str]:
    provenance, notes = bundle.manifest.provenance, []
    if why_not:
        notes.append(f"no measure of features: {why_not}")
    unmatched = why_no_matching(bundle.manifest.model, reference.train, reference.prompts)
    if unmatched and bundle.manifest.model.condition("prompt") is not None:
        notes.append(f"no R-precision: {unmatched}")
    if no_path:
        notes.append("no latent path: this model takes no latent")
    if provenance.data and provenance.data != reference.train.info.name:
        notes.append(f"the model was trained on {provenance.data!r}, and is compared with another data set")
    elif provenance.data_count and provenance.data_count > len(reference.train):
        notes.append(
            f"the model was trained on {provenance.data_count} images, more than the {len(reference.train)} of "
            "the training part here: it may have seen test images, and then looks better than it is"
        )
    return [*notes, *reference.notes]
