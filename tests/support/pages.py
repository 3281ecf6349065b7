"""A page of a model in a tab: its samples, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.browser import Browser


def sample(tab: Browser, **options: Any) -> tuple[np.ndarray, list[int] | None]:
    data, shape, labels = tab.run(
        "const drawn = await gensdk.sample(given[0]); return [Array.from(drawn.data), drawn.shape, drawn.labels];",
        options,
    )
    return np.array(data, np.float32).reshape(shape), labels


def status(tab: Browser) -> str:
    """What the page says once it has drawn its first samples."""
    wait = """
      for (let i = 0; i < 600; i++) {
        const text = document.getElementById('status').textContent;
        if (!document.getElementById('error').hidden) return document.getElementById('error').textContent;
        if (/ in /.test(text)) return text;
        await new Promise((next) => setTimeout(next, 50));
      }"""
    return str(tab.run(wait))
