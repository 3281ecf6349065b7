"""One graph of a plan, exported and run in ONNX Runtime on what PyTorch was given: no whole bundle is built."""

from __future__ import annotations

from typing import Any

import numpy as np

from gensdk_export.graphs import prepare_modules
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.golden import Recorder
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions


def replay_exported(plan: ExportPlan, name: str, **asked: Any) -> float:
    """Samples two in PyTorch; how far the exported graph `name` is from what it gave, as a share of the largest
    value, or of 1."""
    recorder = Recorder()
    with Generator.from_sessions(plan.model, recorder.wrap(torch_sessions(plan)), plan.files) as model:
        model.sample(2, seed=0, num_inference_steps=2, progress=False, **asked)
        calls = [call for call in recorder.take() if call.graph == name]
    graph = plan.model.graph(name)
    data = export_onnx(graph, prepare_modules(plan)[name], calls[0].feeds)
    apart = [0.0]
    with create_backend("onnxruntime").open(graph, MemoryGraph(data), precision="fp32") as session:
        for call in calls:
            for output, found in session.run(call.feeds).items():
                wanted = call.outputs[output]
                apart.append(float(np.abs(found - wanted).max()) / max(1.0, float(np.abs(wanted).max())))
    return float(np.max(apart))
