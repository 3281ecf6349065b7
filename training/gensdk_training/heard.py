"""What is known of the sound around images, before a network is built."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gensdk_runtime.spec.audio import LEAST_RATE, MOST_RATE, AudioConditionSpec
from gensdk_runtime.spec.strict import StrictModel


class WindowInfo(StrictModel):
    """The window of sound around each image: `samples`, of one channel, at `sample_rate` Hz."""

    samples: Annotated[int, Field(ge=2)]
    sample_rate: Annotated[int, Field(ge=LEAST_RATE, le=MOST_RATE)]

    @property
    def condition(self) -> AudioConditionSpec:
        """As the runtime describes it."""
        return AudioConditionSpec(samples=self.samples, sample_rate=self.sample_rate, window=True)
