"""Our ONNX -> LiteRT converter beside litert-torch and onnx2tf: files, speed of the files, cost of converting.

    python -m benchmarks.peers_setup                 # once: the peers' environments
    python -m benchmarks.convert --json convert.json # all fifteen networks, about three quarters of an hour

Each converter runs in its own process and environment; litert-torch gets the torch network (with its inputs and
outputs turned channels-last, its fastest form), the other two the ONNX file that our exporter made of it. The files
that answer as ONNX Runtime does are then timed side by side in one process. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import eight
from benchmarks.costs import ROOT, Cost, median_cost, run_worker
from benchmarks.eight import EIGHT
from benchmarks.files import FileFacts, Timing
from benchmarks.peers_setup import PEERS, peer_python
from benchmarks.report import OURS, NetResult, is_right, misses, summary, tables
from edgekit import isolate
from edgekit.atomic import write_atomically
from edgekit.errors import EdgeKitError

__all__ = ["NET_NAMES", "main", "measure_net"]

_NETS = ("efficientnet_lite0", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
         "resnet18", "resnet50", "ghostnet", "unet", "mlp")
NET_NAMES = (*_NETS, *(net for net in EIGHT if net not in _NETS))
_TIMING_MARGIN_S = 600.0
# Converting with litert-torch takes half a minute and is an order of magnitude from ours: once is enough.
_ONCE = {"litert_torch"}
_COMMAND = f"{OURS}_command"


class Options(NamedTuple):
    """How long to measure: to ``half_width`` of the ratios' intervals, or for ``seconds`` on one network."""

    cache: Path
    repeats: int
    half_width: float
    seconds: float


def measure_net(net: str, options: Options) -> NetResult:
    """All figures of one network; a peer that fails is named in ``failures``. Raises where ours fails."""
    folder = options.cache / net
    _step(net, "network and ONNX")
    _kept("prepare", net, folder, "weights.pt")
    export = _kept("export", net, folder, "model.onnx")
    costs, failures = _convert_all(net, folder, options.repeats)
    command = costs.pop(_COMMAND)
    _step(net, "verification")
    verified = _run("edgekit_verified", net, folder)
    files, wrong = _facts_of(net, folder, list(costs))
    failures |= wrong
    timed = {name: str(folder / f"{name}.tflite") for name, facts in files.items() if is_right(facts) or name == OURS}
    _step(net, f"CPU time of {', '.join(timed)}")
    timing = isolate.call("benchmarks.files:cpu_times", timed, OURS, str(folder / "weights.npy"), options.half_width,
                          options.seconds, timeout_s=options.seconds + _TIMING_MARGIN_S, subject=f"Timing {net}")
    assert isinstance(timing, Timing)
    return NetResult(net, files, costs, command, export, verified, timing, failures)


def _convert_all(net: str, folder: Path, repeats: int) -> tuple[dict[str, Cost], dict[str, str]]:
    """Median costs by converter, ours first; repeats go round in turn, so that they see the same load."""
    runs: dict[str, list[Cost]] = {name: [] for name in (OURS, _COMMAND, *PEERS)}
    failures: dict[str, str] = {}
    for i in range(repeats):
        for name, costs in runs.items():
            if name in failures or (name in _ONCE and i):
                continue
            _step(net, f"{name}, run {i + 1}")
            try:
                costs.append(_kept(name, net, folder, f"{name}.tflite") if name in _ONCE else _run(name, net, folder))
            except EdgeKitError as error:
                if name not in PEERS:
                    raise
                failures[name] = error.message.strip().splitlines()[-1]
    return {name: median_cost(costs) for name, costs in runs.items() if costs}, failures


def _facts_of(net: str, folder: Path, names: Sequence[str]) -> tuple[dict[str, FileFacts], dict[str, str]]:
    files: dict[str, FileFacts] = {}
    failures: dict[str, str] = {}
    for name in names:
        _step(net, f"what {name}'s file answers")
        try:
            facts = isolate.call("benchmarks.files:facts", str(folder / f"{name}.tflite"), str(folder / "model.onnx"),
                                 str(folder / "weights.npy"), subject=f"The file that {name} made of {net}")
        except EdgeKitError as error:
            if name == OURS:
                raise
            failures[name] = error.message.strip().splitlines()[-1]
            continue
        assert isinstance(facts, FileFacts)
        files[name] = msgspec.structs.replace(facts, repeats=_repeats(name, folder)) if name == OURS else facts
    return files, failures


def _repeats(name: str, folder: Path) -> dict[str, str]:
    """What each engine says to the file when it runs twice; an engine that it takes down is an answer too."""
    found = {}
    for engine in ("Interpreter", "CompiledModel"):
        try:
            found[engine] = str(isolate.call("benchmarks.files:run_twice", engine, str(folder / f"{name}.tflite"),
                                             str(folder / "weights.npy"), subject=f"{name}'s file"))
        except EdgeKitError as error:
            found[engine] = error.message.strip().splitlines()[-1]
    return found


def _run(name: str, net: str, folder: Path, out: str = "") -> Cost:
    python = peer_python(name) if name in PEERS else Path(sys.executable)
    return run_worker(python, name, {
        "net": net,
        "weights": str(folder / "weights.pt"),
        "onnx": str(folder / "model.onnx"),
        "out": str(folder / (out or f"{name}.tflite")),
        "report": str(folder / f"{name}.parts.json"),
    })


def _kept(name: str, net: str, folder: Path, out: str) -> Cost:
    """As ``_run``, unless an earlier run left its result."""
    kept = folder / f"{name}.cost.json"
    if kept.exists() and (folder / out).exists():
        return msgspec.json.decode(kept.read_bytes(), type=Cost)
    cost = _run(name, net, folder, out)
    write_atomically(kept, msgspec.json.encode(cost))
    return cost


def _cache_key() -> str:
    """Changes with what the kept files depend on: the networks, the exporter and the versions."""
    digest = hashlib.sha256(repr(PEERS).encode())
    for name in ("benchmarks/nets.py", "benchmarks/net_blocks.py", "benchmarks/nets_more.py", "benchmarks/worker.py",
                 "benchmarks/peers_setup.py", "converters/torch_to_onnx.py", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:12]


def _step(net: str, what: str) -> None:
    print(f"{net}: {what}", file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convert", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--net", action="append", choices=NET_NAMES, help="only this network; may be repeated")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--repeats", type=int, default=3, help="conversions per converter; medians are shown")
    parser.add_argument("--half-width", type=float, default=0.01, help="stop timing at this width of the interval")
    parser.add_argument("--seconds", type=float, default=90.0, help="the most seconds spent timing one network")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "convert", help="where files are kept")
    parser.add_argument("--fresh", action="store_true", help="keep nothing from earlier runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print the tables and what was missed; 1 when something was."""
    given = _arguments(arguments)
    cache = given.cache.absolute() / _cache_key()
    if given.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    for peer in PEERS:
        peer_python(peer)  # a missing environment is an error now, not a peer that fails later
    options = Options(cache, given.repeats, given.half_width, given.seconds)
    results = []
    for net in given.net or NET_NAMES:
        results.append(measure_net(net, options))
        if given.json:
            write_atomically(given.json, msgspec.json.format(msgspec.json.encode(results)))
    print(tables(results))
    print("\n## LiteRT CPU time against the best peer\n\n" + "\n".join(f"- {line}" for line in summary(results)))
    print("\n" + eight.section(results))
    missed = [line for result in results for line in misses(result)] + eight.misses(results)
    print("\nMissed:\n" + "\n".join(f"- {line}" for line in missed) if missed else "\nEvery bar is met.")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeKitError as error:
        sys.exit(str(error))
