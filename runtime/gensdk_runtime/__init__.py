"""Sampling from bundles with numpy and a backend; never PyTorch."""

from gensdk_runtime.host import telemetry

telemetry.switch_off()  # here, since every part of gensdk imports this before it imports anything else
