"""Latency measurement, baselines and the regression gate."""
