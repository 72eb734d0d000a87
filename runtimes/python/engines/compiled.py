"""LiteRT's CompiledModel with XNNPACK's weight cache, for models of fixed shapes, when a cache folder is given.

Measured with EfficientNet-Lite0 (18.5 MB, x86, one thread; the interpreter in brackets): the first load in a process
takes 33 ms of CPU time with its hashing (39), a run the same, and the process has 48 MB of private memory (65), because
the prepared weights are mapped from the cache file, which processes share. Its resident memory as a whole is not
smaller, 99 MB (95), and the load that fills the cache takes 69 ms. So this is worth it for several processes or many
short ones, and is not the default. ``python -m benchmarks.runtime_overhead`` prints these figures.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifacts import Array, TensorSpec
from edgekit.errors import EngineError, MissingExtra
from edgekit.runtime.engines.base import Session
from edgekit.runtime.engines.weight_cache import WeightCache
from edgekit.runtime.inputs import contiguous

__all__ = ["CompiledSession"]

_DTYPES = ("float32", "float16", "int32", "int8", "uint8", "bool")
"""What its tensor buffers hold."""

_NO_PLUGINS = "/nonexistent"  # else it tries to load the compiler plugins of every vendor, with a warning for each


class CompiledSession(Session):
    """A .tflite model without dynamic dimensions and variable tensors, which CompiledModel gets wrong or refuses."""

    engine = "litert"

    def __init__(self, data: bytes, threads: int, cache_dir: Path, model_sha256: str) -> None:
        """Raises EngineError for a model that CompiledModel refuses, MissingExtra, WriteFailed, BadRecipe."""
        module, version = _import_compiled_model()
        cache = WeightCache(cache_dir, model_sha256, version, threads)
        self._data: bytes | None = data  # the engine keeps a pointer into it, not a reference to it
        if cache.is_good():
            self._model = _compile(module, data, threads, cache.path, version)
        elif cache.has_room(len(data)):
            with cache.building() as path:
                self._model = _compile(module, data, threads, path, version)
        else:
            raise EngineError(f"The disk of the cache folder '{cache_dir}' is too full to keep prepared weights.")
        self._key = next(iter(self._model.get_signature_list()))
        super().__init__(_specs(self._model.get_input_tensor_details(self._key)),
                         _specs(self._model.get_output_tensor_details(self._key)), f"{version} (CompiledModel)")
        for spec in self.inputs + self.outputs:
            if spec.dtype not in _DTYPES:
                raise EngineError(f"CompiledModel cannot pass '{spec.name}', which is {spec.dtype}.")
        self._in = {spec.name: self._model.create_input_buffer_by_name(self._key, spec.name) for spec in self.inputs}
        self._out = {spec.name: self._model.create_output_buffer_by_name(self._key, spec.name) for spec in self.outputs}

    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name, buffer in self._in.items():
            buffer.write(contiguous(feeds[name]))
        self._model.run_by_name(self._key, self._in, self._out)
        return {spec.name: self._out[spec.name].read(int(np.prod(spec.shape)), np.dtype(spec.dtype)).reshape(spec.shape)
                for spec in self.outputs}

    def _release(self) -> None:
        self._in = self._out = {}
        self._model = None
        self._data = None


def _import_compiled_model() -> tuple[Any, str]:
    """The package's modules that are needed, and "package version". Raises MissingExtra."""
    try:
        importlib.import_module("ai_edge_litert.compiled_model")
        package = importlib.import_module("ai_edge_litert")
    except ImportError as error:
        raise MissingExtra.of("ai-edge-litert", "litert") from error
    return package, f"ai-edge-litert {package.__version__}"


def _compile(package: Any, data: bytes, threads: int, cache: Path, version: str) -> Any:
    module = package.compiled_model
    try:
        environment = module.Environment.create(compiler_plugin_path=_NO_PLUGINS, dispatch_library_path=_NO_PLUGINS)
        cpu = module.CpuOptions(num_threads=threads, xnnpack_weight_cache_path=str(cache))
        return module.CompiledModel.from_buffer(data, environment=environment, options=module.Options(cpu_options=cpu))
    except Exception as error:  # the boundary to the engine: its binding raises several types
        raise EngineError(f"{version} (CompiledModel) refused the model: {error}") from error


def _specs(details: Mapping[str, Any]) -> list[TensorSpec]:
    ordered = sorted(details.items(), key=lambda item: int(item[1]["index"]))
    return [TensorSpec(name, str(entry["dtype"]), tuple(int(dim) for dim in entry["shape"])) for name, entry in ordered]
