"""Real-time translation: frames from a camera, a video, a folder or a program go through a translation model.

::

    from gensdk_runtime.generator import Generator
    from gensdk_runtime.stream import StreamOptions, translate_stream

    with Generator.load("style.gsdk") as generator:
        report = translate_stream(generator, "in.mp4", "out.mp4", StreamOptions(side_by_side=True))
    print(report.text())
"""

from __future__ import annotations

from gensdk_runtime.stream.figures import StreamFigures, StreamReport
from gensdk_runtime.stream.frame import FileFacts, Presentation, StreamFacts, TranslatedFrame
from gensdk_runtime.stream.options import StreamOptions
from gensdk_runtime.stream.pipeline import translate_stream
from gensdk_runtime.stream.server import HttpSink
from gensdk_runtime.stream.sink import CallbackSink, FolderSink, ImageSink, Sink, WindowSink
from gensdk_runtime.stream.source import Capture, CorruptFrameError, ImageSource, IteratorSource, Source
from gensdk_runtime.stream.talking_face import TalkingFace
from gensdk_runtime.stream.video_sink import VideoSink
from gensdk_runtime.stream.video_source import VideoSource

__all__ = [
    "CallbackSink",
    "Capture",
    "CorruptFrameError",
    "FileFacts",
    "FolderSink",
    "HttpSink",
    "ImageSink",
    "ImageSource",
    "IteratorSource",
    "Presentation",
    "Sink",
    "Source",
    "StreamFacts",
    "StreamFigures",
    "StreamOptions",
    "StreamReport",
    "TalkingFace",
    "TranslatedFrame",
    "VideoSink",
    "VideoSource",
    "WindowSink",
    "translate_stream",
]
