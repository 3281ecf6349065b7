"""What graphs make of images and of other samples that a caller hands back: latents, logits, likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gensdk_runtime.conditions.base import Growth
from gensdk_runtime.plan.batches import Batches
from gensdk_runtime.plan.executor import Executor, Work
from gensdk_runtime.programs.feedforward import FeedforwardProgram
from gensdk_runtime.programs.run import Run


@dataclass(frozen=True)
class Judging:
    """What a graph that takes images makes of them: `made`, by a `method` of the program; `infinite`: that may be
    infinite."""

    what: str
    made: str
    method: Callable[[Any, Run], None]
    infinite: bool = False

    def fill(
        self,
        data: NDArray[Any],
        given: Mapping[str, NDArray[Any]],
        executor: Executor,
        size: int | None,
        growth: Growth | None = None,
    ) -> None:
        """Fills `data` [n, ...] from what is `given`, the "image" [n, C, H, W] and conditions, in batches of
        `size`; `growth`: of what a sample takes."""
        rounds = executor.plan(len(data), size, growth=growth, fixed=True, accept=lambda program: False)
        executor.run(
            Work(
                lambda runner, run: self.method(runner.program, run),
                rounds,
                Batches((), given, None, data),
                self.what,
                self.made,
                halves=size is None,
                infinite=self.infinite,
                progress=False,
            )
        )


ENCODING = Judging("encoding", "latents", lambda program, run: program.encode(run))
CLASSIFYING = Judging("classifying", "logits", FeedforwardProgram.classify)
JUDGING = Judging(
    "judging", "likelihoods", lambda program, run: program.log_likelihood(run), infinite=True
)  # that of the program at hand
