"""Where the weights in a bundle came from."""

from __future__ import annotations

from pydantic import Field

from gensdk_runtime.spec.fields import Finite, Json
from gensdk_runtime.spec.strict import StrictModel

UNFINISHED = "unfinished"
"""Key in a provenance's config, whose value says in words what the training did not come to."""


class Provenance(StrictModel):
    """Where the weights came from."""

    config: Json = Field(default_factory=dict)
    data: str = ""
    data_count: int = 0
    steps: int = 0
    seed: int = 0
    ema: bool = False
    metrics: dict[str, Finite] = Field(default_factory=dict)
    created: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def unfinished(self) -> str | None:
        """What the training did not come to, in words; None: nothing is known to be missing."""
        said = self.config.get(UNFINISHED)
        return said if isinstance(said, str) else None
