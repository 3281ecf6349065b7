"""An evaluation as one HTML page: pictures inside, everything escaped, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
from html import escape

from gensdk_runtime.media.images import encode_image, image_grid
from gensdk_training.data.dataset import Images
from gensdk_training.evaluation.evaluation_report import EvaluationReport, Measure
from gensdk_training.evaluation.result import Evaluation

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
img{max-width:100%;image-rendering:pixelated;background:#000}.note{background:#fff3cd;padding:.4rem .8rem}
.bar{display:block;height:.7rem;background:#4878a8}.real{background:#bbb}small{color:#666}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_ARROWS = {"lower": "lower is better", "higher": "higher is better", "near floor": "as the floor is best"}


def page(evaluation: Evaluation) -> str:
    """The whole page."""
    report, pictures = evaluation.report, evaluation.pictures
    title = f"{report.model} against {report.data}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        _facts(report),
        _table(report),
        _picture("Samples", "the first ones drawn, not chosen", pictures.samples),
        _picture(
            "Nearest training images",
            "the samples nearest to a training image, each followed by that image, mirrored where that is nearer",
            pictures.nearest,
            columns=8,
        ),
        _picture("Worst", "furthest outside the test images' manifold", pictures.worst, columns=8),
        _picture("Best", "deepest inside the test images' manifold", pictures.best, columns=8),
        _classes(report),
        _path(report),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def with_error(measure: Measure) -> str:
    """The value, and its standard error where there is one."""
    return number(measure.value) + ("" if measure.error is None else f" ± {measure.error:.2g}")


def extractor_line(report: EvaluationReport) -> str:
    """What made the features, in words."""
    used = report.extractor
    if used is None:
        return "no extractor"
    accuracy = "" if used.accuracy is None else f", test accuracy {used.accuracy:.3f}"
    return f"{used.name}, {used.feature_count} features, resizing: {used.resizing}{accuracy}"


def _facts(report: EvaluationReport) -> str:
    rows = {
        "model": f"{report.model} ({report.family})",
        "samples": f"{report.samples} of {report.size} from seed {report.seed}",
        **({"classes": f"drawn {report.labels}"} if report.labels else {}),
        "data": f"{report.data}: {report.train_count} training images, {report.test_count} test images",
        "extractor": extractor_line(report),
        "sampling": ", ".join(f"{k} {v}" for k, v in report.settings.items() if k not in ("model", "n")),
        "took": f"{report.seconds:.0f} s",
    }
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
    return f"<table>{cells}</table>"


def _table(report: EvaluationReport) -> str:
    rows = "".join(
        f'<tr><td>{escape(m.title)}</td><td class="n">{with_error(m)}</td><td class="n">{number(m.floor)}</td>'
        f"<td>{_ARROWS[m.better]}<br><small>{escape(m.detail)}</small></td></tr>"
        for m in report.measures
    )
    return (
        "<h2>Measures</h2><p>The floor is what training images get in the samples' place: read each value by "
        f"it.</p><table><tr><th>measure</th><th>value</th><th>floor</th><th></th></tr>{rows}</table>"
    )


def _picture(title: str, text: str, images: Images, columns: int | None = None) -> str:
    if not len(images):
        return ""
    data = base64.b64encode(encode_image(image_grid(images, columns=columns), ".png", {})).decode("ascii")
    heading = f"<h2>{escape(title)}</h2><p>{escape(text)}</p>"
    return f'{heading}<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _classes(report: EvaluationReport) -> str:
    if not report.classes:
        return ""
    most = max(max(c.samples / report.samples, c.share) for c in report.classes) or 1.0
    rows = "".join(
        f'<tr><td>{escape(c.name)}</td><td class="n">{c.samples}</td><td style="width:60%">'
        f'<span class="bar" style="width:{100 * c.samples / report.samples / most:.1f}%"></span>'
        f'<span class="bar real" style="width:{100 * c.share / most:.1f}%"></span></td></tr>'
        for c in report.classes
    )
    return (
        "<h2>Classes</h2><p>What the classifier takes the samples for (blue), and the test images (grey).</p>"
        f"<table><tr><th>class</th><th>samples</th><th></th></tr>{rows}</table>"
    )


def _path(report: EvaluationReport) -> str:
    latent, output = report.path.get("latent"), report.path.get("output")
    if not isinstance(latent, list) or not isinstance(output, list):
        return ""
    right, top = max(latent) or 1.0, max(output) or 1.0
    points = " ".join(
        f"{300 * x / right:.1f},{150 - 140 * y / top:.1f}" for x, y in zip(latent, output, strict=True)
    )
    return (
        "<h2>From latent to picture</h2><p>Distance between pictures over distance between their latents: a "
        "straight rise is smooth, a step is a jump, flat is a collapse.</p>"
        f'<svg viewBox="-5 -5 310 165" width="420" role="img"><polyline points="{points}" fill="none" '
        'stroke="#4878a8" stroke-width="2"/><path d="M0 0V150H300" fill="none" stroke="#888"/></svg>'
        f"<p><small>latent distance up to {right:.2f}, picture distance up to {top:.1f} grey levels</small></p>"
    )
