"""A server under mixed load at half of what it can do, for long: does it drop or leak anything?

    python -m benchmarks.soak configs/demo/srp4ctr/dcnv2.yaml --work work --minutes 60 --record

First the server is driven as hard as it goes, for its capacity. Then clients ask for 1 to 1,000
candidates at half of that, one request in a hundred is malformed, and a new version comes every
minute, the oldest but five being deleted. The memory is that behind the first fifth of the time,
when all shapes have been seen, and at the end.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
from rich.console import Console

from benchmarks.load import (
    CANDIDATES,
    after,
    copy_version,
    drive,
    local_server,
    malformed,
    random_request,
)
from benchmarks.memory import memory_mb
from benchmarks.record import Result, record
from benchmarks.serving import models_of
from tfctr import serving
from tfctr.config import load_run
from tfctr.serving.model_directory import publish, tidy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a run config")
    parser.add_argument("--work", type=Path, required=True, help="where datasets are kept")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    console = Console()
    clients = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        config = load_run(args.config)
        data, _, student = models_of(config, args.work, console)
        directory = Path(temporary) / "served"
        version = serving.export(student, data, Path(temporary) / "exported" / directory.name)
        publish(directory, lambda new: copy_version(version, new))
        rng = np.random.default_rng(1)
        good = [random_request(version, rng, n) for n in CANDIDATES for _ in range(25)]
        rng.shuffle(good)
        with local_server([directory]) as (address, process):
            drive(address, good, clients, after(5))
            capacity = len(drive(address, good, clients, after(10)).seconds) / 10
            end, versions, seen = after(60 * args.minutes), [1], []

            def publish_versions() -> None:
                began = time.monotonic()
                while not end():
                    time.sleep(1)
                    passed = time.monotonic() - began
                    if passed > 60 * versions[0]:
                        publish(directory, lambda new: copy_version(version, new))
                        tidy(directory, keep=5)
                        versions[0] += 1
                    if not seen and passed > 12 * args.minutes:
                        seen.append(memory_mb(process))

            rate = capacity / 2
            threads = [threading.Thread(target=publish_versions)]
            bad, found = list(malformed(good, 1000)), {}

            def send(name: str, requests: list[bytes], number: int, each: float) -> None:
                pause = np.random.default_rng(number)
                found[name] = drive(
                    address, requests, number, end, lambda: float(pause.exponential(each))
                )

            # Each of the clients waits so long on average that together they send at that rate.
            threads.append(
                threading.Thread(target=send, args=("good", good, 8, 8 / rate - 1 / capacity))
            )
            threads.append(threading.Thread(target=send, args=("bad", bad, 1, 100 / rate)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seen.append(memory_mb(process))
    sent = len(found["good"].seconds) + len(found["good"].failed)
    results = [
        Result("capacity", capacity, "requests/s"),
        Result("good requests", sent, "requests"),
        Result("good requests a second", sent / (60 * args.minutes), "requests/s"),
        Result("good requests: failed", len(found["good"].failed), "requests"),
        Result("good requests: p50", found["good"].percentile(50), "ms"),
        Result("good requests: p99", found["good"].percentile(99), "ms"),
        Result("malformed requests", len(found["bad"].seconds) + len(found["bad"].failed), ""),
        Result("versions served", versions[0], "versions"),
        Result("memory after a fifth of the time", seen[0], "MB"),
        Result("memory at the end", seen[-1], "MB"),
    ]
    for result in results:
        console.print(f"{result.what}: {result.value:,.2f} {result.unit}")
    for text in sorted(set(found["good"].failed))[:5]:
        console.print(text)
    if args.record:
        runs = f"{args.minutes:g} minutes"
        record("A server for long at half its capacity", "benchmarks.soak", results, runs)


if __name__ == "__main__":
    main()
