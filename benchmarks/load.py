"""A server under load: latency, rows a second and memory of every method's student.

    python -m benchmarks.load configs/movielens-1m/rok/dcnv2.yaml --work work --record
    python -m benchmarks.load --versions saved_models/movielens-1m-dcnv2/1 --address ranker:8500

A request asks `rank` for the scores of 1 to 1,000 candidates of one user, all drawn from the
model's vocabularies, frequent tokens more often. Clients ask again as soon as they are answered:
one, for the latency of a request alone; then one a core, for what the server can do. Students and
their backbones are exported untrained, for weights cost the same whatever they hold; each has a
server of its own, which shares this machine with the clients. With `--address` that server is
asked, which serves the same versions under their folders' names.

All models are asked in turn, in short rounds, for a machine is not equally fast all the time. The
percentiles are of the requests of all rounds.

Then a server gets new versions while it is asked, and 10,000 malformed requests among good ones:
none but the malformed may fail.
"""

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import grpc
import numpy as np
from rich.console import Console
from tensorflow_serving.apis import predict_pb2

from benchmarks.memory import memory_mb
from benchmarks.record import Result, record, record_table
from benchmarks.serving import models_in
from tfctr import serving
from tfctr.schema import Numeric, Tokens, Vector
from tfctr.serving.exporter.raw_features import read_tokens
from tfctr.serving.model_directory import publish, served_schema
from tfctr.serving.server.tensors import to_proto

CANDIDATES = (1, 10, 100, 1000)
ROUNDS = 20
PREDICT = "/tensorflow.serving.PredictionService/Predict"
HEADERS = ("model", "candidates", "p50 ms", "p95 ms", "p99 ms", "rows/s", "p50: over its backbone")
HEADERS += ("server's memory, MB",)


def random_request(version: Path, rng: np.random.Generator, candidates: int) -> bytes:
    """A serialized `PredictRequest` of `rank`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = version.parent.name, "rank"
    for feature in served_schema(version).inputs:
        rows = (1, candidates) if feature.side == "item" else (1,)
        request.inputs[feature.name].CopyFrom(to_proto(_values(feature, version, rng, rows)))
    return bytes(request.SerializeToString())


def _values(
    feature: Any, version: Path, rng: np.random.Generator, rows: tuple[int, ...]
) -> np.ndarray:
    shape = (*rows, feature.max_length) if feature.is_list else rows
    if isinstance(feature, Vector):
        return rng.normal(size=shape).astype(np.float32)
    if isinstance(feature, Numeric):
        return rng.normal(feature.mean or 0.0, 1.0, shape).astype(np.float32)
    if isinstance(feature, Tokens):
        return rng.integers(5, 200, shape)  # tokens that any encoder has
    tokens = _tokens(version / "assets", feature.vocabulary, feature.dtype)
    ranks = np.exp(rng.uniform(0, np.log(len(tokens) + 1), shape)).astype(np.int64) - 1
    return tokens[ranks]


_read: dict[Path, np.ndarray] = {}


def _tokens(assets: Path, name: str, dtype: str) -> np.ndarray:
    """A vocabulary, the most frequent token first."""
    path = assets / f"{name}.txt"
    if path not in _read:
        tokens = read_tokens(path)
        of = np.array(list(map(int, tokens)), np.int64) if dtype == "int" else None
        _read[path] = np.array(tokens, object) if of is None else of
    return _read[path]


@dataclass
class Driven:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)  # of the requests that were answered
    failed: list[str] = field(default_factory=list)  # what was said to the others

    def percentile(self, q: float) -> float:
        return 1000 * float(np.percentile(self.seconds, q))


def drive(
    address: str,
    requests: Sequence[bytes],
    clients: int,
    until: Callable[[], bool],
    pause: Callable[[], float] = lambda: 0.0,
) -> Driven:
    """Sends the requests in turn from each of some clients, until that is true.

    Args:
        address: of the server.
        requests: serialized `PredictRequest`s.
        clients: how many ask at a time.
        until: whether it is enough.
        pause: seconds that a client waits behind an answer.
    """
    driven = Driven()

    def client(first: int) -> None:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(PREDICT)
            for number in itertools.count(first, clients):
                if until():
                    return
                start = time.perf_counter()
                try:
                    call(requests[number % len(requests)], timeout=30)
                    driven.seconds.append(time.perf_counter() - start)
                except grpc.RpcError as error:
                    driven.failed.append(f"{error.code().name}: {error.details()}")
                wait = pause()
                if wait:
                    time.sleep(wait)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return driven


def after(seconds: float) -> Callable[[], bool]:
    """Whether so much time is over from now."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


@contextmanager
def local_server(directories: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its address and process id."""
    command = [sys.executable, "-m", "tfctr.cli", "serve", *map(str, directories)]
    process = subprocess.Popen(
        [*command, "--port=0", "--rest-port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    try:
        found = None
        for line in process.stdout:
            found = re.search(rb"gRPC on (\S+:\d+)", line)
            if found:
                break
        if not found:
            raise RuntimeError(f"the server did not start: {' '.join(command)}")
        yield found[1].decode(), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@dataclass
class Measured:
    """What one client and several saw of a model, a round after the other."""

    alone: list[Driven] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # rows/s of several clients

    def percentile(self, q: float) -> float:
        """Milliseconds, of all requests of one client."""
        return Driven([s for driven in self.alone for s in driven.seconds]).percentile(q)


def measure(
    versions: Mapping[str, Path], addresses: Mapping[str, str], clients: int, seconds: float
) -> dict[str, dict[int, Measured]]:
    """By model and candidates; `seconds` are those of a round."""
    measures: dict[str, dict[int, Measured]] = {name: {} for name in versions}
    for candidates in CANDIDATES:
        rng = np.random.default_rng(1)
        requests = {
            name: [random_request(version, rng, candidates) for _ in range(50)]
            for name, version in versions.items()
        }
        for name, address in addresses.items():
            drive(address, requests[name], 1, after(seconds))  # warm-up
            measures[name][candidates] = Measured()
        for _ in range(ROUNDS):
            for name, address in addresses.items():
                measured = measures[name][candidates]
                measured.alone.append(drive(address, requests[name], 1, after(seconds)))
                start = time.perf_counter()
                together = drive(address, requests[name], clients, after(seconds))
                taken = time.perf_counter() - start
                measured.rates.append(candidates * len(together.seconds) / taken)
                failed = [*measured.alone[-1].failed, *together.failed]
                if failed:
                    raise RuntimeError(f"{name}: {failed[0]}")
    return measures


def swapped(version: Path, clients: int, swaps: int) -> Driven:
    """What clients saw of a server that served so many new versions meanwhile."""
    rng = np.random.default_rng(2)
    requests = [random_request(version, rng, 100) for _ in range(50)]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / version.parent.name
        publish(directory, lambda new: copy_version(version, new))
        with local_server([directory]) as (address, _):
            served = threading.Event()

            def publish_versions() -> None:
                with grpc.insecure_channel(address) as channel:
                    for _ in range(swaps):
                        number = int(
                            publish(directory, lambda new: copy_version(version, new)).name
                        )
                        while _who_answers(channel, requests[0]) != number:
                            time.sleep(0.1)
                served.set()

            thread = threading.Thread(target=publish_versions)
            thread.start()
            driven = drive(address, requests, clients, served.is_set)
            thread.join()
    return driven


def copy_version(version: Path, new: Path) -> None:
    """Fills the folder of a new version."""
    shutil.copytree(version, new, dirs_exist_ok=True)


def _who_answers(channel: grpc.Channel, request: bytes) -> int:
    """The number of the version."""
    answer = predict_pb2.PredictResponse.FromString(channel.unary_unary(PREDICT)(request))
    return int(answer.model_spec.version.value)


def malformed(requests: Sequence[bytes], count: int, seed: int = 3) -> Iterator[bytes]:
    """Requests with bytes changed, cut off or put in, and in turn such as can be read but make no
    sense."""
    dice = random.Random(seed)
    for number in range(count):
        text = bytearray(dice.choice(requests))
        if number % 2:
            yield _senseless(bytes(text), dice)
            continue
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(text) + 1)
            text[at : at + dice.choice((0, 1, 64))] = dice.randbytes(dice.choice((0, 1, 16)))
        yield bytes(text)


def _senseless(text: bytes, dice: random.Random) -> bytes:
    request = predict_pb2.PredictRequest.FromString(text)
    for _ in range(dice.randint(1, 3)):
        name = dice.choice([*request.inputs, "no such input"])
        kind = dice.randrange(5)
        if kind == 0 and name in request.inputs:
            del request.inputs[name]
        elif kind == 1:
            request.inputs[name].dtype = dice.choice((0, 1, 3, 7, 9, 19, 9999))
        elif kind == 2:
            request.inputs[name].tensor_shape.dim.add(size=dice.choice((-2, 0, 5, 2**31, 2**62)))
        elif kind == 3:
            request.inputs[name].tensor_content = dice.randbytes(dice.randrange(1, 50))
        elif kind == 4:
            request.model_spec.signature_name = dice.choice(("", "classify", "no such signature"))
    return bytes(request.SerializeToString())


def mistreated(version: Path, address: str, count: int) -> tuple[Driven, Driven]:
    """What a client saw that sent malformed requests, and one that sent good ones meanwhile."""
    rng = np.random.default_rng(4)
    good = [random_request(version, rng, 10) for _ in range(50)]
    bad = list(malformed(good, count))
    of_bad: list[Driven] = []
    left = itertools.count(1)

    def send() -> None:
        of_bad.append(drive(address, bad, 1, lambda: next(left) > count))

    thread = threading.Thread(target=send)
    thread.start()
    of_good = drive(address, good, 1, lambda: not thread.is_alive())
    thread.join()
    return of_bad[0], of_good


def table_of(
    measures: Mapping[str, Mapping[int, Measured]],
    backbones: Mapping[str, str],
    memory: Mapping[str, float],
) -> list[list[str]]:
    rows = []
    for name, by_candidates in measures.items():
        for candidates, measured in by_candidates.items():
            ratio = ""
            if backbones.get(name, name) != name:
                of_backbone = measures[backbones[name]][candidates]
                ratio = f"{measured.percentile(50) / of_backbone.percentile(50):.2f}"
            cells = [f"{measured.percentile(q):.2f}" for q in (50, 95, 99)]
            rate = f"{statistics.median(measured.rates):,.0f}"
            used = f"{memory[name]:.0f}" if name in memory else ""
            rows.append([name, f"{candidates:,}", *cells, rate, ratio, used])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*", type=Path, help="run configs of students")
    parser.add_argument("--versions", nargs="*", default=[], type=Path, help="exports, besides")
    parser.add_argument("--address", help="of a server; if not given, one is started here")
    parser.add_argument("--work", type=Path, help="where datasets are kept")
    parser.add_argument("--clients", type=int, default=os.cpu_count(), help="at a time")
    parser.add_argument("--seconds", type=float, default=0.25, help="of each measure a round")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary) / "work"
        versions: dict[str, Path] = {version.parent.name: version for version in args.versions}
        backbones: dict[str, str] = {}
        for path in args.configs:
            made = models_in(path, work, Path(temporary), console)
            name, backbone = made.name, made.backbone
            backbones[name] = backbone
            if backbone not in versions:
                versions[backbone] = serving.export(
                    made.plain, made.data, Path(temporary) / backbone
                )
            versions[name] = serving.export(made.student, made.data, Path(temporary) / name)
        memory: dict[str, float] = {}
        if args.address:
            addresses = dict.fromkeys(versions, args.address)
            measures = measure(versions, addresses, args.clients, args.seconds)
        else:
            with ExitStack() as stack:
                servers = {
                    name: stack.enter_context(local_server([version.parent]))
                    for name, version in versions.items()
                }
                addresses = {name: address for name, (address, _) in servers.items()}
                measures = measure(versions, addresses, args.clients, args.seconds)
                memory = {n: memory_mb(process, peak=True) for n, (_, process) in servers.items()}
        table = table_of(measures, backbones, memory)
        for cells in (HEADERS, *table):
            console.print(" | ".join(cells))
        if args.record:
            note = (
                f"Milliseconds of one client's requests, rows/s of {args.clients} clients. The "
                "memory is the highest of the server's process."
            )
            record_table(
                "A server under load",
                "benchmarks.load",
                HEADERS,
                table,
                f"{ROUNDS} rounds of {args.seconds:g} s a measure",
                note,
            )
        if args.address:
            return
        results = _robustness(next(iter(versions.values())), args.clients, console)
        if args.record:
            record("A server under attack", "benchmarks.load", results, "one run of each")


def _robustness(version: Path, clients: int, console: Console) -> list[Result]:
    swaps = swapped(version, clients, 10)
    with local_server([version.parent]) as (address, process):
        mistreated(version, address, 100)
        before = memory_mb(process)
        bad, good = mistreated(version, address, 10_000)
        grown = memory_mb(process) - before
    results = [
        Result("while 10 new versions came", len(swaps.seconds), "requests"),
        Result("while 10 new versions came: failed", len(swaps.failed), "requests"),
        Result("malformed requests", len(bad.seconds) + len(bad.failed), "requests"),
        Result("malformed requests: refused", len(bad.failed), "requests"),
        Result("good requests among them", len(good.seconds) + len(good.failed), "requests"),
        Result("good requests among them: failed", len(good.failed), "requests"),
        Result("memory that the server grew by meanwhile", grown, "MB"),
    ]
    for result in results:
        console.print(f"{result.what}: {result.value:,.0f} {result.unit}")
    return results


if __name__ == "__main__":
    main()
