"""What the project claims about speed, as figures of measured cases: each bound stands here, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from figures import Bound, Figure, at_least, at_most, ratio_figure
from peers import PEERS
from sidebyside import Result

SAME_PICTURES = at_most(1e-3)
BEST_PEER = at_most(1.03)
FASTER_THAN_DIFFUSERS = {
    ("digits-ddpm", 1): at_least(5),
    ("digits-ddpm", 64): at_least(1.25),
    ("cifar10-unet", 1): at_least(1.5),
    ("cifar10-unet", 8): at_least(1.15),
}
SHARED_FASTER_THAN_DIFFUSERS = {("cifar10-unet", 1): at_least(2.5), ("cifar10-unet", 8): at_least(2.5)}
FASTER_THAN_NAIVE = {("pixelcnn-28", 1): at_least(180), ("pixelcnn-28", 64): at_least(1000)}


def figures_of(results: Iterable[Result]) -> list[Figure]:
    """All figures of the compared cases, group by group."""
    found = [
        figure
        for result in results
        if "gensdk" in result.timings
        for claim in (same_pictures, best_peer, against_diffusers, against_naive)
        for figure in claim(result)
    ]
    groups = list(dict.fromkeys(figure.group for figure in found))
    return sorted(found, key=lambda figure: groups.index(figure.group))


def title(result: Result) -> str:
    """The case in a few words."""
    steps = f", {result.case.steps} steps" if result.case.steps else ""
    return f"{result.workload}, batch {result.case.batch}{steps}"


def same_pictures(result: Result) -> Iterator[Figure]:
    """Largest difference from any exact peer; for a slow peer the pixels that it would draw otherwise."""
    exact = {name: value for name, value in result.differences.items() if PEERS[name].exact}
    if exact:
        worst = max(exact, key=lambda name: exact[name])
        what = f"{title(result)}: max |difference| from {len(exact)} peers, in [-1, 1]"
        yield Figure("same pictures", what, exact[worst], bound=SAME_PICTURES, detail=f"the most from {worst}")
    for name, pixels in result.pixels.items():
        yield Figure(
            "same pictures",
            f"{title(result)}: pixels that {name} draws otherwise",
            pixels["all"],
            bound=at_most(0),
            detail=f"of {pixels['all_of']}, each given the same pixels before it; two whole rows, pass by pixel: "
            f"{pixels['rows']} of {pixels['rows_of']}",
        )


def best_peer(result: Result) -> Iterator[Figure]:
    """``auto`` over the fastest that is not gensdk."""
    best = result.best_peer
    if best is not None:
        what = f"{title(result)}: gensdk / best peer ({best})"
        detail = f"{_ms(result, 'gensdk')} and {_ms(result, best)}; {result.timings['gensdk'].detail}"
        yield ratio_figure(
            "auto against the best peer",
            what,
            result.rounds("gensdk"),
            result.rounds(best),
            BEST_PEER,
            detail=detail,
        )


def against_diffusers(result: Result) -> Iterator[Figure]:
    """How many times faster than diffusers' own pipeline, exact and with shared features."""
    if "diffusers" not in result.timings:
        return
    key = (result.workload, result.case.batch)
    yield _speedup(result, "gensdk", "diffusers", FASTER_THAN_DIFFUSERS.get(key))
    if "gensdk-shared" in result.timings:
        bound = SHARED_FASTER_THAN_DIFFUSERS.get(key)
        options = ", ".join(f"{name}={value}" for name, value in PEERS["gensdk-shared"].options.items())
        largest, rms = result.differences["gensdk-shared"], result.rms["gensdk-shared"]
        detail = (
            f"{options}; from the exact images at most {largest:.3g}, RMS {rms:.2g}; FID: benchmarks/quality.py"
        )
        yield _speedup(result, "gensdk-shared", "diffusers", bound, detail)


def against_naive(result: Result) -> Iterator[Figure]:
    """How many times faster than one full pass for each pixel."""
    if "torch-naive" in result.timings:
        timing = result.timings["torch-naive"]
        detail = f"naive extrapolated: {timing.scale:.4g} times the passes that were timed"
        bound = FASTER_THAN_NAIVE.get((result.workload, result.case.batch))
        yield _speedup(result, "gensdk", "torch-naive", bound, detail)


def _speedup(result: Result, ours: str, theirs: str, bound: Bound | None, detail: str = "") -> Figure:
    what = f"{title(result)}: {theirs} / {ours}"
    times = f"{_ms(result, theirs)} and {_ms(result, ours)}"
    return ratio_figure(
        f"times faster than {theirs}",
        what,
        result.rounds(theirs),
        result.rounds(ours),
        bound,
        detail="; ".join(filter(None, (times, detail))),
    )


def _ms(result: Result, name: str) -> str:
    return f"{result.timings[name].median:.4g} ms"
