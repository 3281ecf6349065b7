"""``gensdk translate``."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import aside, print_json, say
from gensdk_runtime.errors import InputError

if TYPE_CHECKING:
    from gensdk_runtime.stream import StreamFigures, StreamReport

HANGUP: Any = getattr(signal, "SIGHUP", None)
"""Its terminal was closed; Windows has no such signal."""

EXAMPLES = """
\b
Examples:
  gensdk translate style.gsdk --source photo.jpg --sink painted.png
  gensdk translate style.gsdk --source holiday.mp4 --sink painted.mp4 --side-by-side
  gensdk translate style.gsdk --source photos/ --sink painted/ --label monet
  gensdk translate style.gsdk --source 0 --sink window --skip-similar 2
  gensdk translate talk.gsdk --audio speech.wav --source face.png --sink talk.mp4
  gensdk translate style.gsdk --source rtsp://camera.local/stream --page 8000

\b
With --audio the source is one still image, and the film has the sound. With --live the sound comes at its own
speed, as from a microphone: frames that are late are dropped, and the age of the others counts from the moment
that they show, half a window of sound before they can be made.

\b
Ctrl-C ends a stream and completes the file that it writes; so do a closed terminal and SIGTERM. The exit code is 0
where frames come in real time, since such a stream ends in no other way, else 130. It is 5 for a video that is cut
short; what there is of it was translated and written.

\b
Videos: .mp4, .m4v, .mov, .mkv, .webm, .avi and .gif are written, with the sound and the times of the source.
Videos and URLs need PyAV: pip install "gensdk[video]". Windows and cameras need OpenCV: pip install opencv-python.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option(
    "--source",
    help="A camera's number, a video, an image, a folder of images, or a URL (RTSP, HTTP).",
)
@click.option(
    "--sink", help="A video (.mp4, .webm, .gif, ...), an image, a folder, window, or http:PORT. [default: --page]"
)
@click.option(
    "--page",
    type=click.IntRange(0, 65535),
    is_flag=False,
    flag_value=0,
    metavar="[PORT]",
    help="Show source, result and figures in a browser, on this machine alone. [PORT: a free one]",
)
@click.option(
    "--audio", metavar="FILE", help="What a still face says, of a model that makes such talk: .wav, .flac."
)
@click.option("--fps", type=float, help="Frames in a second of a talking face's film. [default: 25]")
@click.option("--label", help="A class number or name, for a model with classes.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Resize frames before they are translated.")
@click.option("--side-by-side", is_flag=True, help="Show the source left of the result.")
@click.option("--mix", type=float, default=0.0, metavar="A", help="The source's share in what is shown, 0 to 1.")
@click.option(
    "--skip-similar", type=float, metavar="T", help="Reuse results where no part differs by over T of 255 levels."
)
@click.option(
    "--live/--no-live",
    default=None,
    help="Drop frames to stay fresh (a video, or --audio, plays at its own speed), or keep all. [default: by the "
    "source]",
)
@click.option(
    "--tile",
    type=int,
    metavar="PIXELS",
    help="Cut larger frames into tiles; 0: never. [default: where tiles give what the whole frame gives]",
)
@click.option("--max-frames", type=int, help="End after so many frames.")
@click.option("--max-seconds", type=float, help="End after so long.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "auto"]), default="fp32", show_default=True)
@click.option("--threads", type=int, help="CPU threads in one graph. [default: the backend's choice]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and no figures meanwhile.")
def translate(
    *,
    bundle: str,
    source: str | None,
    sink: str | None,
    page: int | None,
    size: str | None,
    backend: str,
    precision: Any,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Translate the frames of a camera, a video or images with BUNDLE, a model that turns images into images."""
    from gensdk_runtime.generator import Generator
    from gensdk_runtime.stream import HttpSink, StreamOptions, translate_stream

    if source is None:
        raise click.UsageError(
            "Missing option: --source, such as 0 for the first camera, video.mp4, photos/, photo.jpg or a URL."
        )
    if sink is None and page is None:
        raise click.UsageError(
            "Missing option: --sink, such as window, result.mp4, results/ or result.png; or --page; or both."
        )

    def tell(line: str) -> None:
        with suppress(OSError):  # a terminal that was closed; the film goes on to its end
            aside(line)

    def tell_figures(figures: StreamFigures) -> None:
        if figures.frames or figures.dropped or figures.corrupt:  # a large image takes minutes
            tell(f"  {figures.text()}")

    settings = StreamOptions(
        size=parse_size(size),
        on_event=tell,
        on_second=None if as_json else tell_figures,
        **options,
    )
    sinks: list[Any] = [] if sink is None else [sink]
    sinks += [] if page is None else [HttpSink(page)]
    with (
        Generator.load(bundle, backend=backend, precision=precision, threads=threads) as generator,
        ended_by_signals() as signals,
    ):
        report = translate_stream(generator, source, sinks, settings)
        name = generator.model.name
    with suppress(OSError) if HANGUP in signals else nullcontext():  # then nobody reads it
        if as_json:
            print_json({"model": name, "sink": sink, **report.to_dict()})
        else:
            say(summary(name, report, sink))
    return exit_code(report)


def exit_code(report: StreamReport) -> int:
    """0 where all frames came; 5 where the source's file is cut short; 130 where it was stopped before its end."""
    if report.ended == "cut":
        return InputError.exit_code
    return 130 if report.ended == "interrupted" and not report.live else 0


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) from ``640x360``."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text.strip().lower())
    if match is None:
        raise InputError(f"expected --size as WIDTHxHEIGHT, such as 640x360, got {text[:40]!r}")
    return int(match[2]), int(match[1])


def summary(model: str, report: StreamReport, sink: str | None) -> str:
    """The whole stream in one line."""
    where = "" if sink in (None, "window") else f": {sink}"
    frames = f"{report.frames} frame" + ("" if report.frames == 1 else "s")
    return f"{frames} through {model} in {report.seconds:.1f} s; {report.text()}{where}"


@contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """Inside, the signals with which services are stopped and terminals are closed do what Ctrl-C does.

    Yields those that came. One that is ignored from the beginning, as under ``nohup``, stays so.
    """
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came  # only the main thread may set signals
        return
    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGTERM, HANGUP)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
