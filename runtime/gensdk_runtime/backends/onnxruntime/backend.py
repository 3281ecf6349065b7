"""ONNX Runtime: the CPU provider, and the accelerated ones where they really run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.base import Availability, Backend, GraphSource, Session
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.backends.onnxruntime.memory import bound_memory
from gensdk_runtime.backends.onnxruntime.package import (
    INSTALL,
    import_onnxruntime,
    load_gpu_libraries,
    why_not_loaded,
)
from gensdk_runtime.backends.onnxruntime.providers import (
    PROVIDERS,
    chain_of,
    devices_of,
    is_built_in,
    kept_folder,
    library_link,
    missing,
    options_of,
    package_link,
    prepare_precision,
)
from gensdk_runtime.backends.onnxruntime.session import OnnxRuntimeSession, said
from gensdk_runtime.backends.onnxruntime.trial import trial_link
from gensdk_runtime.errors import BackendError, InputError, UnavailableError, did_you_mean
from gensdk_runtime.host.forking import CUDA, OPENVINO
from gensdk_runtime.host.nvidia import nvidia_driver
from gensdk_runtime.host.processor import thread_limit
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

if TYPE_CHECKING:
    from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels
    from gensdk_runtime.backends.onnxruntime.captures import Captures
    from gensdk_runtime.backends.onnxruntime.resident import SessionOnGpu

LARGE_BYTES = 16 * 2**20
"""A graph of this size allocates each tensor as it comes: planning all of them ahead keeps both in memory, which
is 190 MB more for a U-Net of 36 million parameters at batch 8, and is felt in the time of small graphs alone."""
SPIN_MICROSECONDS = "200"
"""Where threads may spin: longer than from one step to the next, and soon over when there is nothing to do."""
TF32, GRAPHS = "tf32", "graphs"
"""What stands behind a provider that may round products, as in ``onnxruntime:cuda:tf32``, and behind one that is
to capture its runs as CUDA graphs."""


@register_backend("onnxruntime")
class OnnxRuntimeBackend(Backend):
    """Runs ``.onnx`` graphs.

    `provider`: cpu, cuda, tensorrt, nvtensorrtrtx or openvino; `threads` bounds the threads in one graph, which
    wait busily for the next run with `spinning`. `tf32`: NVIDIA GPUs may round what goes into fp32 products to 10
    bits, which is faster and drifts beyond the bounds of most bundles. `graphs`: runs on CUDA are launched as CUDA
    graphs (see :mod:`.captures`).
    """

    def __init__(
        self,
        provider: str = "cpu",
        threads: int | None = None,
        spinning: bool = False,
        *,
        tf32: bool = False,
        graphs: bool = False,
    ) -> None:
        if provider not in PROVIDERS:
            raise InputError(f"no execution provider {provider!r}{did_you_mean(provider, PROVIDERS)}")
        if tf32 and PROVIDERS[provider].tf32 is None:
            able = ", ".join(key for key, each in PROVIDERS.items() if each.tf32 is not None)
            raise InputError(f"provider {provider!r} has no TF32, only NVIDIA's have: {able}")
        if graphs and not PROVIDERS[provider].makes_graphs:
            able = ", ".join(key for key, each in PROVIDERS.items() if each.makes_graphs)
            raise InputError(f"provider {provider!r} makes no CUDA graphs here, only: {able}")
        self._ort = import_onnxruntime()
        self.provider = provider
        self.graphs = graphs
        self._kernels: NoiseKernels | None = None
        self.threads = threads
        self.spinning = spinning
        self.tf32 = tf32
        chosen = PROVIDERS[provider]
        package = package_link(self._ort, chosen)
        if package.ok is False or (chosen.wants is not None and nvidia_driver().problem):
            raise UnavailableError(missing(self._ort, provider))

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None, spinning: bool) -> Self:
        """An instance for `provider` (None: the CPU); ``:tf32`` and ``:graphs`` may follow it, in this order."""
        name, colon, rest = (provider or "cpu").partition(":")
        modes = rest.split(":") if colon else []
        if modes not in ([], [TF32], [GRAPHS], [TF32, GRAPHS]):
            raise InputError(f"expected nothing, {TF32!r} or {GRAPHS!r} behind {name!r}, got {rest!r}")
        return cls(name, threads, spinning, tf32=TF32 in modes, graphs=GRAPHS in modes)

    @classmethod
    def availability(cls) -> Availability:
        """A listed GPU provider counts only with a GPU that it runs on, since ONNX Runtime lists what was
        compiled in."""
        try:
            ort = import_onnxruntime()
        except UnavailableError as failure:
            return Availability(False, reason=str(failure).split(";")[0], remedy=INSTALL)
        problems = {key: missing(ort, key) for key in PROVIDERS}
        usable = tuple(key for key, problem in problems.items() if not problem)
        absent = {key: problem for key, problem in problems.items() if problem}
        return Availability(True, version=ort.__version__, devices=usable, missing=absent)

    @classmethod
    def chains(cls) -> dict[str, Chain]:
        """What each provider needs, from the driver to the package; where all is there, whether a graph runs."""
        try:
            ort = import_onnxruntime()
        except UnavailableError:
            return super().chains()
        chains = {key: chain_of(ort, key) for key in PROVIDERS}
        for key, chain in chains.items():
            if PROVIDERS[key].wants is not None and not chain.broken:
                chains[key] = Chain((*chain.links, trial_link(key)))
        return chains

    @property
    def label(self) -> str:
        """``onnxruntime``, or with the provider, as in ``onnxruntime:cuda``."""
        name = self.name if self.provider == "cpu" else f"{self.name}:{self.provider}"
        return ":".join((name, *([TF32] if self.tf32 else []), *([GRAPHS] if self.graphs else [])))

    def rounding(self) -> Backend | None:
        """The same provider with TF32 allowed."""
        if self.tf32 or PROVIDERS[self.provider].tf32 is None:
            return None
        return type(self)(self.provider, self.threads, self.spinning, tf32=True, graphs=self.graphs)

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """Loads the graph; a provider that falls back to another one is an error, never a silent change."""
        provider = PROVIDERS[self.provider]
        if provider.wants is not None:
            CUDA.use()
            load_gpu_libraries(self._ort)
            if (libraries := Chain((library_link(self._ort, provider),))).broken:
                raise UnavailableError(f"{provider.name}: {libraries.problem}")
            prepare_precision(self.provider, self.label, tf32=self.tf32)
        elif self.provider == "openvino":
            OPENVINO.use()
        model = source.read() if source.path is None else str(source.path)
        kept = kept_folder(self._ort, self.provider, source, tf32=self.tf32)
        gpu = self._gpu(graph) if provider.takes_stream else None
        told = partial(options_of, tf32=self.tf32, kept=kept, stream=None if gpu is None else gpu.stream.handle)
        keys = (self.provider, *provider.chain)
        chain: list[Any] = [(PROVIDERS[key].name, told(key)) for key in keys]
        named = {provider.name}
        try:
            options = self._options()
            options.enable_mem_pattern = isinstance(model, bytes) and len(model) < LARGE_BYTES
            if not is_built_in(self._ort, provider):
                devices = devices_of(self._ort, provider)[:1]
                options.add_provider_for_devices(devices, chain[0][1])
                named, chain = {device.ep_name for device in devices}, []
            session = None
            if gpu is not None and gpu.captures is not None:
                with_graphs = [(PROVIDERS[key].name, told(key, graphs=True)) for key in keys]
                session = self._capturing(model, options, with_graphs, gpu.captures)
            if session is None:
                session = self._ort.InferenceSession(model, options, providers=chain, enable_fallback=0)
        except UnavailableError:
            raise
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            if problem := missing(self._ort, self.provider):
                raise UnavailableError(problem) from None
            raise BackendError(f"ONNX Runtime can't load graph {graph.name!r}: {said(failure)}") from None
        running = session.get_providers()
        if not named & set(running):
            cause = why_not_loaded(self._ort, provider.library) or f"ONNX Runtime fell back to {running[0]}"
            remedy = "see gensdk env --explain, or use backend='onnxruntime'"
            problem = missing(self._ort, self.provider)
            raise UnavailableError(problem or f"{provider.name} did not start here ({cause}); {remedy}")
        session.disable_fallback()
        if gpu is not None:
            return gpu.session(graph, session, backend=self.label, precision=precision)
        return OnnxRuntimeSession(
            graph, self._ort, session, memory=provider.memory, backend=self.label, precision=precision
        )

    def _gpu(self, graph: GraphSpec) -> SessionOnGpu | None:
        """Where a session of this graph works; None: its inputs pass the host."""
        from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels  # here: who has none loads none of it
        from gensdk_runtime.backends.onnxruntime.resident import on_gpu

        if self._kernels is None:
            self._kernels = NoiseKernels()
        return on_gpu(self._ort, graph, self._kernels, graphs=self.graphs)

    def _capturing(self, model: Any, options: Any, chain: list[Any], captures: Captures) -> Any | None:
        """A session that captures its runs; None where ONNX Runtime says that it can't."""
        try:
            return self._ort.InferenceSession(model, options, providers=chain, enable_fallback=0)
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            captures.refuse(said(failure))
            return None

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        bound_memory(self._ort, options)
        options.log_severity_level = 4  # failures come as exceptions, with our own words around them
        threads = thread_limit() if self.threads is None else self.threads
        if threads is not None:
            options.intra_op_num_threads = threads
        # One graph runs at a time, and threads that spin between runs starve the application's own.
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.spinning else "0")
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        return options
