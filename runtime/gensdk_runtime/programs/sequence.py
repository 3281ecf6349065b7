"""One element after another, each drawn in the graph from the one before and the states of all layers."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.arguments import as_array
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.errors import BackendError, InputError, ManifestError, not_finite, tell
from gensdk_runtime.programs.base import (
    Int64,
    Judged,
    Program,
    Wanted,
    carried_states,
    condition_inputs,
    conditions_wanted,
    register_program,
    require_signature,
)
from gensdk_runtime.programs.contexts import Contexts, require_contexts
from gensdk_runtime.programs.run import Run, State
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.sequence import DRAWING_OPTIONS, SequenceSpec
from gensdk_runtime.spec.settings import SequenceSettings
from gensdk_runtime.spec.signature import GraphSpec

if TYPE_CHECKING:
    from gensdk_runtime.outputs.base import Output

OWN = ("token", "position", "uniform")
"""Inputs of a step graph that each has."""
LOOK_EVERY, LOOK_EVERY_ON_DEVICE = 32, 1024
"""Elements between two looks at whether all samples have ended; on a device each is a download, and waits."""


class SequenceForm(Program[SequenceSettings]):
    """What drawing a sequence is, step by step or many elements in a call: its options, and where samples end.

    All uniforms of a sample come from stream 0, element after element, so that a shorter sample is the beginning
    of a longer one.
    """

    Spec = SequenceSpec
    Settings = SequenceSettings
    ends = True

    @property
    def spec(self) -> SequenceSpec:
        """The model's program."""
        return self.model.program_of(SequenceSpec)

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """The likelihood of samples."""
        return frozenset(("log_likelihood",))

    def drawing_options(self) -> GraphSpec:
        """The graph that takes options."""
        return self.model.graph(self.spec.step_graph)

    def fit(self, settings: SequenceSettings, options: Mapping[str, Any]) -> SequenceSettings:
        """Refuses options that the graph does not know, and more elements than the model makes."""
        for name in DRAWING_OPTIONS:
            neutral = SequenceSettings.model_fields[name].default
            if getattr(settings, name) != neutral and self.drawing_options().input(name) is None:
                raise InputError(f"model {self.model.name!r} draws without {name}; leave it out")
        spec = self.spec
        if settings.top_k is not None and settings.top_k > spec.levels:
            raise InputError(f"expected top_k up to {spec.levels}, the tokens there are, got {settings.top_k}")
        if settings.max_length is not None and settings.max_length > spec.length:
            raise InputError(
                f"expected max_length up to {spec.length}, as model {self.model.name!r} was exported, got "
                f"{settings.max_length}"
            )
        return settings

    def check(self) -> None:
        """That samples are made of the elements, as :class:`SequenceSpec` says, and contexts of conditions."""
        spec, output = self.spec, self.model.output
        if self.context is not None:
            step, taken = (
                self.model.graph(spec.step_graph),
                {*OWN, *DRAWING_OPTIONS, *(c.tensor for c in self.conditions)},
            )
            require_contexts(self.context.graph, self.conditions, step, taken)
        if spec.axis >= len(output.shape) or output.shape[spec.axis] % spec.length:
            raise ManifestError(
                f"model {self.model.name!r}: expected samples with a multiple of {spec.length} elements along "
                f"axis {spec.axis}, got the shape {list(output.shape)}; export the bundle again"
            )
        form = (output.shape, output.dtype, spec.channels)
        if spec.decode_graph is None and form != ((spec.length,), "int64", 1):
            raise ManifestError(
                f"model {self.model.name!r}: without a decode graph expected samples of {spec.length} tokens, "
                f"int64 and of one channel, got {list(output.shape)}, {output.dtype}, {spec.channels} channels; "
                "export the bundle again"
            )

    @property
    def context(self) -> Session | None:
        """The context graph, where the model has one."""
        name = self.spec.context_graph
        return None if name is None else self.sessions[name]

    @property
    def contexts(self) -> dict[str, Wanted]:
        """What the context graph makes, as steps take it."""
        made = () if self.context is None else self.context.graph.outputs
        return {each.name: Wanted(each.shape, each.dtype) for each in made}

    @property
    def each(self) -> int:
        """What of a sample, along its axis, one element stands for."""
        return self.model.output.shape[self.spec.axis] // self.spec.length

    def require_tokens(self, tokens: Int64, session: Session) -> None:
        """:class:`BackendError` where a graph had nothing to draw some of `tokens` [L, B, C] from."""
        if tokens.size and tokens.min() < 0:
            bad = int((tokens < 0).any(axis=(0, 2)).sum())
            raise not_finite(f"{bad} of {tokens.shape[1]} samples", session.backend, session.precision)

    def length(self, settings: SequenceSettings) -> int:
        """Elements to draw at most."""
        return settings.max_length or self.spec.length

    def lasting(self, bound: Bound, run: Run, settings: SequenceSettings) -> dict[str, NDArray[Any]]:
        """What stays the same from the first element to the last, by the input that a graph has for it: conditions
        and options."""
        values = {
            "temperature": settings.temperature,
            "top_k": settings.top_k or self.spec.levels,
            "top_p": settings.top_p,
        }
        known = {name: value for name, value in values.items() if bound.session.graph.input(name) is not None}
        options = {name: np.full(len(run), value, DRAWING_OPTIONS[name]) for name, value in known.items()}
        return {**condition_inputs(self.conditions, bound, run.conditions), **options}

    def lengths(self, tokens: Int64) -> Int64:
        """The elements [B] of each sample of `tokens` [L, B, C]: those before the first stop."""
        drawn = len(tokens)
        if self.spec.stop is None:
            return np.full(tokens.shape[1], drawn, np.int64)
        ends = tokens[:, :, 0] == self.spec.stop
        return np.where(ends.any(axis=0), ends.argmax(axis=0), drawn).astype(np.int64)

    def keep(self, run: Run, made: NDArray[Any], lengths: Int64) -> None:
        """Hands over samples [B, ...] of the output's shape, of which `lengths` elements count; behind them lie
        zeros, or tokens of rest."""
        spec, wanted = self.spec, len(run.data)
        run.finish(made)
        each = self.each
        behind = spec.rest if spec.decode_graph is None else 0
        stays = int(spec.decode_graph is None and spec.stop is not None)  # tokens keep the one that ends them
        along = np.moveaxis(run.data, spec.axis + 1, 1)
        for sample, length in zip(along, lengths[:wanted].tolist(), strict=True):
            sample[(length + stays) * each :] = behind
        if run.lengths is not None:
            run.lengths[...] = lengths[:wanted] * each


def _nearest(part: NDArray[np.float32], known: NDArray[np.float32]) -> Int64:
    """For each of `part` [m, elements, D] the number of the nearest of `known` [K, D]: [m, elements]."""
    if part.shape[2] == 1:  # of many numbers, as amplitudes are
        numbers = known[:, 0].astype(np.float64)
        order = np.argsort(numbers, kind="stable")
        middles = (numbers[order][1:] + numbers[order][:-1]) / 2
        return order[np.searchsorted(middles, part[..., 0].astype(np.float64))].astype(np.int64)
    apart = (known**2).sum(axis=1) - 2 * part @ known.T  # of |x - k|^2 what differs
    nearest: Int64 = apart.argmin(axis=2).astype(np.int64)
    return nearest


@register_program
class SequenceProgram(SequenceForm):
    """See :class:`SequenceSpec` for the graphs."""

    continues = True

    def check(self) -> None:
        """The tensors that :class:`SequenceSpec` lists."""
        super().check()
        spec, output = self.spec, self.model.output
        step, likelihood = (self.sessions[name].graph for name in (spec.step_graph, spec.likelihood_graph))
        element = Wanted(("batch", spec.channels), "int64")
        options = {
            name: Wanted(("batch",), dtype)
            for name, dtype in DRAWING_OPTIONS.items()
            if step.input(name) is not None
        }
        require_signature(
            step,
            {
                "token": element,
                "position": Wanted((1,), "int64"),
                "uniform": Wanted(("batch", spec.channels)),
                **options,
                **self.contexts,
                **conditions_wanted(self.conditions, step, "batch"),
            },
            {"next_token": element},
            states=True,
        )
        whole = {
            output.tensor: Wanted(("batch", *output.shape), output.dtype),
            "lengths": Wanted(("batch",), "int64"),
        }
        asked = conditions_wanted(self.conditions, likelihood, "batch")
        require_signature(likelihood, whole | asked, {"log_likelihood": Wanted(("batch",))})
        if spec.decode_graph is not None:
            decode = self.sessions[spec.decode_graph].graph
            made = decode.output(output.tensor)
            axis = spec.axis + 1
            along = made.shape[axis : axis + 1] if made is not None else ()
            named = along if along and isinstance(along[0], str) else ("elements",)
            require_signature(
                decode,
                {"tokens": Wanted(("batch", "elements", spec.channels), "int64")},
                {
                    output.tensor: Wanted(
                        ("batch", *output.shape[: spec.axis], *named, *output.shape[axis:]), output.dtype
                    )
                },
            )

    def begin(self, run: Run, settings: SequenceSettings) -> State:
        """A step is an element."""
        return _Elements(run, self, settings)

    def prefix(self, given: Any, output: Output[Any]) -> Int64:
        """Tokens int64 [m, longest, C] that samples begin with, -1 where one is to be drawn."""
        begun, lengths = output.beginning(given)
        tokens, elements = self.tokens_of(begun), lengths // self.each
        if (lengths % self.each).any():
            raise InputError(f"expected prefix in steps of {self.each}, got {int(lengths.max())}")
        self._require_made(begun, tokens, "prefix")
        place = np.arange(tokens.shape[1])[None, :, None]
        if (tokens[:, :, :1] == self.spec.stop)[place < elements[:, None, None]].any():
            raise InputError(f"the prefix holds token {self.spec.stop}, which ends a sample; leave it out")
        return np.where(place < elements[:, None, None], tokens, -1)

    def tokens_of(self, begun: NDArray[Any]) -> Int64:
        """Tokens [m, elements, C] of the beginnings of samples: each the one whose decoding is the nearest.

        Of several channels each is a part of the sample along its first axis, as the tracks of a piano roll are.
        """
        spec = self.spec
        if spec.decode_graph is None:
            return begun[:, :, None].astype(np.int64)
        single = spec.axis == 0 and spec.channels == 1 and begun.shape[2:] == (1,)
        parts = spec.axis == 1 and begun.shape[1] == spec.channels
        if self.each != 1 or not (single or parts):
            raise InputError(
                f"the elements of model {self.model.name!r} are neither single numbers nor parts with a token "
                "each; leave prefix out"
            )
        tokens = np.array([token for token in range(spec.levels) if token != spec.stop], np.int64)
        apart = [
            _nearest(part, known) for part, known in zip(self._parts(begun), self._known(tokens), strict=True)
        ]
        return tokens[np.stack(apart, axis=2)]

    def _parts(self, whole: NDArray[Any]) -> NDArray[np.float32]:
        """Samples [m, ...] as [C, m, elements, numbers], for each channel its own."""
        elements = whole.shape[self.spec.axis + 1]
        by_channel = np.moveaxis(whole, 1, 0) if self.spec.axis else whole[None]
        return by_channel.reshape(self.spec.channels, len(whole), elements, -1).astype(np.float32)

    def _known(self, tokens: Int64) -> NDArray[np.float32]:
        """What each of `tokens` [K] stands for in each channel: [C, K, numbers]."""
        repeated = np.repeat(tokens[:, None, None], self.spec.channels, axis=2)
        return self._parts(self._decoded(repeated))[:, :, 0]

    def _decoded(self, tokens: Int64) -> NDArray[Any]:
        """What `tokens` [m, elements, C] stand for, one row after another: an engine has a largest batch."""
        decode, name = self.sessions[str(self.spec.decode_graph)], self.model.output.tensor
        return np.concatenate([decode.run({"tokens": tokens[row : row + 1]})[name] for row in range(len(tokens))])

    def _require_made(self, begun: NDArray[Any], tokens: Int64, what: str) -> None:
        """:class:`InputError` where samples on steps, such as notes, are none that `tokens` make."""
        spec, output = self.spec, self.model.output
        if spec.decode_graph is None or output.discrete_step is None:
            return
        again = self._decoded(tokens)
        other = (again != begun).reshape(len(begun), -1).any(axis=1)
        if other.any():
            raise InputError(
                f"{what} {int(other.argmax())} is nothing that model {self.model.name!r} can make, as several "
                "notes of a track at once are; change it"
            )

    def to_judge(self, output: Output[Any], values: Any, lengths: Any) -> Judged:
        """Whole samples under the output's name, and their "lengths" in elements, at the most all of them.

        The dimensions are the tokens, the end of a sample being one too.
        """
        spec, given = self.spec, output.given(values)
        if spec.decode_graph is not None and self.model.output.discrete_step is not None:
            self._require_made(given, self.tokens_of(given), "sample")
        own = self.lengths(given.T[:, :, None]) if spec.decode_graph is None else None
        known = own if lengths is None else self._checked(lengths, len(given))
        if known is None:
            known = np.full(len(given), spec.length, np.int64)
            self._tell_still_ends(given, output)
        if own is not None and (known > own).any():
            row = int((known > own).argmax())
            raise InputError(
                f"expected lengths up to the end of each sample, got {known[row]} for sample {row}, whose token "
                f"{spec.stop} ends it after {own[row]}; leave lengths out"
            )
        ends = (known < spec.length).astype(np.int64) if spec.stop is not None else 0
        made = spec.length * spec.channels * spec.levels
        return Judged({self.model.output.tensor: given, "lengths": known}, (known + ends) * spec.channels, made)

    def _tell_still_ends(self, whole: NDArray[Any], output: Output[Any]) -> None:
        """Says of samples that could have ended before, since they hold zeros from some place on, as :meth:`keep`
        puts them behind an end, that all of it is judged."""
        last = np.moveaxis(whole, self.spec.axis + 1, 1)[:, -self.each :]
        still = int((~last.reshape(len(whole), -1).any(axis=1)).sum())
        if still and self.spec.stop is not None:
            tell(
                f"{still} of {len(whole)} {output.plural} end in zeros, which are judged as a part of them; pass "
                "the Samples, or lengths=samples.lengths, where they ended before"
            )

    def _checked(self, lengths: Any, n: int) -> Int64:
        """`lengths` [n] in units of the output, as elements. Without an end nothing is no sample."""
        array, each = as_array(lengths, "lengths"), self.each
        least, most = 0 if self.spec.stop is not None else each, self.spec.length * each
        fits = array.dtype.kind in "iu" and array.shape == (n,) and ((array >= least) & (array <= most)).all()
        if not fits or (array % each).any():
            steps = "" if each == 1 else f", in steps of {each}"
            raise InputError(f"expected lengths as {n} whole numbers from {least} to {most}{steps}")
        return array.astype(np.int64) // each

    def log_likelihood(self, run: Run) -> None:
        """See :class:`Program`."""
        session = self.sessions[self.spec.likelihood_graph]
        wanted = {spec.name for spec in session.graph.inputs}
        feeds = {name: np.ascontiguousarray(values) for name, values in run.conditions.items() if name in wanted}
        start = perf_counter()
        found = session.run(feeds)["log_likelihood"]
        run.graph_seconds += perf_counter() - start
        run.finish(found)


class _Elements(State):
    """A batch, element after element; one that has ended goes on unseen until all have."""

    def __init__(self, run: Run, program: SequenceProgram, settings: SequenceSettings) -> None:
        super().__init__(run)
        spec, session = program.spec, program.sessions[program.spec.step_graph]
        self._program, self._session, self._stop = program, session, spec.stop
        self._length = program.length(settings)
        carry = {"next_token": "token", **carried_states(session.graph)}
        self._bound = self.borrow(session, {"batch": len(run)}, carry)
        self._start(run, program.lasting(self._bound, run, settings))

    def _start(self, run: Run, lasting: Mapping[str, NDArray[Any]]) -> None:
        """On a device all is there from the first element to the last, and came there together."""
        program, bound, length = self._program, self._bound, self._length
        spec, context = program.spec, program.context
        contexts = None if context is None else Contexts(context, program.conditions, self)
        asked = contexts.asked if contexts is not None else {}
        element = (len(run), spec.channels)
        shape = (length, spec.channels)
        self._uniforms = bound.drawn("uniform", bound.hold_keys(run.keys), noise.LATENT_STREAM, shape)
        self._known = self._prefix(run)
        here = bound.upload(
            {
                "given": self._known,
                "position": np.arange(length, dtype=np.int64)[:, None],
                "begin": np.full(element, spec.begin, np.int64),
                "tokens": np.full((len(run), spec.length, spec.channels), spec.rest, np.int64),
                **{f"step {name}": values for name, values in lasting.items()},
                **{f"context {name}": values for name, values in asked.items()},
            }
        )
        self._given, self._positions, self._tokens = here["given"], here["position"], here["tokens"]
        for name in bound.carry.values():
            bound.feed(name).fill(0)
        bound.feed("token")[...] = here["begin"]
        for name in lasting:
            bound.feed(name)[...] = here[f"step {name}"]
        if contexts is not None:
            there = {name: here[f"context {name}"] for name in asked} if contexts.resident(bound) else asked
            contexts.hand_over(there, bound)
        self._drawn = self._seen = 0
        self._decoder: Bound | None = None
        self._ended = np.zeros(len(run), np.bool_)
        self._look_every = LOOK_EVERY_ON_DEVICE if bound.on_device else LOOK_EVERY
        self._begun = int((self._known[:, :, 0] >= 0).all(axis=0).sum())
        while self._drawn < self._begun:
            self._advance()

    def _prefix(self, run: Run) -> Int64:
        """What is given, int64 [B, longest, C], -1 where an element is drawn."""
        given = run.conditions.get("prefix")
        if given is None:
            return np.zeros((len(run), 0, self._program.spec.channels), np.int64)
        if given.shape[1] >= self._length:
            raise InputError(
                f"expected max_length above the {given.shape[1]} elements of the prefix, got {self._length}"
            )
        return given

    def step(self) -> bool:
        """One element of each sample, at least one of which is drawn."""
        run, number, begun = self.run, self._drawn, self._begun
        self._advance()
        told = run.end_step(number - begun, self._length - begun, number, self._sofar)
        if told or self._drawn == self._length:
            return False
        return self._stop is None or bool(self._drawn % self._look_every) or not self._all_ended()

    def _advance(self) -> None:
        bound, number = self._bound, self._drawn
        bound.feed("uniform")[...] = self._uniforms[:, number]
        bound.feed("position")[...] = self._positions[number]
        self.run.timed(bound)
        self._tokens[:, number] = bound.made("next_token")
        if number < self._known.shape[1]:
            self._force(number)
        self._drawn = number + 1

    def _force(self, number: int) -> None:
        """Puts what is given in the place of what was drawn."""
        known = self._known[:, number, 0] >= 0
        rows = [slice(None)] if known.all() else [slice(row, row + 1) for row in np.flatnonzero(known).tolist()]
        token = self._bound.feed("token")
        for some in rows:
            self._tokens[some, number] = self._given[some, number]
            token[some] = self._given[some, number]

    def _all_ended(self) -> bool:
        """Looks at the elements that were drawn since the last look."""
        newest: Int64 = self._bound.fetch(self._tokens)[:, self._seen : self._drawn]
        self._ended |= (newest[:, :, 0] == self._stop).any(axis=1)
        self._seen = self._drawn
        return bool(self._ended.all())

    def _sofar(self) -> NDArray[Any]:
        """The samples as far as they have come."""
        _, made = self._fetched()
        return made.copy()

    def _fetched(self) -> tuple[Int64, NDArray[Any]]:
        """The tokens [B, length, C], those to come at rest, and what they stand for, [B, ...] of the output's
        shape; from a device they come together. Valid until the next run."""
        spec, bound = self._program.spec, self._bound
        if spec.decode_graph is None:
            (tokens,) = bound.fetch_all(self._tokens)
            return tokens, tokens[:, :, 0]
        decoder = self._decoder or self._borrow_decoder(spec.decode_graph)
        decoder.feed("tokens")[...] = self._tokens
        self.run.timed(decoder)
        tokens, made = bound.fetch_all(self._tokens, decoder.made(self._program.model.output.tensor))
        expected = (len(self.run), *self._program.model.output.shape)
        if made.shape != expected:
            raise BackendError(
                f"graph {spec.decode_graph!r} makes {list(made.shape)} of {spec.length} elements, expected "
                f"{list(expected)}; export the bundle again"
            )
        return tokens, made

    def _borrow_decoder(self, name: str) -> Bound:
        spec, output = self._program.spec, self._program.model.output
        session = self._program.sessions[name]
        made = session.graph.output(output.tensor)
        sizes = {"batch": len(self.run), "elements": spec.length}
        if made is not None:  # what an element becomes may have an axis of another name
            sizes = {str(made.shape[spec.axis + 1]): output.shape[spec.axis]} | sizes
        self._decoder = self.borrow(session, sizes)
        return self._decoder

    def finish(self) -> None:
        """See :class:`State`."""
        bound, program, drawn = self._bound, self._program, self._drawn
        if not bound.on_device:  # there a graph gets what may be no token, since a look before it would be a wait
            self._require(bound.fetch(self._tokens))
        tokens, made = self._fetched()
        self._require(tokens)
        program.keep(self.run, made, program.lengths(tokens[:, :drawn].transpose(1, 0, 2)))

    def _require(self, tokens: Int64) -> None:
        self._program.require_tokens(tokens[:, : self._drawn].transpose(1, 0, 2), self._session)
