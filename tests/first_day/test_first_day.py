"""A stranger's first day: four logs as people have them, and the commands of the README and docs.

Each command runs in a process of its own, as in a shell: it must end with 0, print no traceback,
and print nothing to the error stream but what the test expects.
"""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
TRAINING = "training: {batch_size: 256, epochs: 5, optimizer: {learning_rate: 0.01}}\n"


def tfctr(folder: Path, *args: str) -> str:
    """What `tfctr ARGS` prints."""
    return run(folder, "-m", "tfctr.cli", *args)


def run(folder: Path, *args: str, quiet: bool = True) -> str:
    done = ended(folder, *args)
    assert done.stderr == "" or not quiet
    return done.stdout


def ended(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """A process that ended with 0."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def served(folder: Path, name: str) -> Iterator[str]:
    """`tfctr serve` of a model of `saved_models/`: its gRPC address."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    ports_of = ("--port", ports[0], "--rest-port", ports[1])
    server = subprocess.Popen(
        [sys.executable, "-m", "tfctr.cli", "serve", f"saved_models/{name}", *ports_of],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while server.poll() is None:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", int(ports[0]))) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{ports[0]}"
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=60)
    assert errors.endswith(f"model {name}: serving version 1\n")
    assert errors.count("\n") == 1
    assert server.returncode == 0


def auc(folder: Path, name: str) -> float:
    metrics = json.loads((folder / "work" / name / "metrics.json").read_text())
    return float(metrics["test"]["auc"])


def predict(
    folder: Path, name: str, rows: str, address: str, *options: str, unknown: str
) -> list[float]:
    """Scores of `tfctr predict`, which warns of one column that the model does not have."""
    command = ("-m", "tfctr.cli", "predict", name, rows, "--server", address)
    done = ended(folder, *command, *options)
    (warning,) = done.stderr.splitlines()
    assert unknown in warning
    return [json.loads(line)["score"] for line in done.stdout.splitlines()]


def test_a_shops_csv(tmp_path: Path) -> None:
    """Semicolons, prices with gaps, quoted titles, ISO times, True and False, a table of customers,
    and two broken lines."""
    rng = np.random.default_rng(0)
    n = 4_000
    user, item = rng.integers(0, 60, n), rng.integers(0, 50, n)
    click = rng.random(n) < np.where(item % 4 == 0, 0.6, 0.1)
    lines = ["when;customer;product;title;price;clicked"]
    for i in range(n):
        price = "" if item[i] % 9 == 0 else f"{1 + item[i] / 4:.2f}"
        when = f"2024-03-{1 + i // 200:02d}T{i % 24:02d}:{i % 60:02d}:00Z"
        title = f'"Mug; ""no. {item[i]}"""'
        lines.append(f"{when};C{user[i]:03d};{item[i]};{title};{price};{bool(click[i])}")
    lines[100] = "2024-03-01T00:00:00Z;C001;3"  # cut off
    lines[200] = lines[200].replace("2024-03-01", "last Friday")
    (tmp_path / "clicks.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    customers = [f"C{i:03d};{['de', 'fr', 'it'][i % 3]};{2000 + i % 7}" for i in range(58)]
    (tmp_path / "customers.csv").write_text("customer;country;since\n" + "\n".join(customers))
    (tmp_path / "shop.yaml").write_text(
        """
name: shop-dcnv2
data:
  name: shop
  source:
    format: csv
    separator: ";"
    events: clicks.csv
    users: {path: customers.csv, key: customer}
  label: {column: clicked}
  time: {column: when}
  user: customer
  item: product
  features:
    - {name: customer, kind: categorical, side: user}
    - {name: country, kind: categorical, side: user}
    - {name: since, kind: categorical, side: user, dtype: int}
    - {name: product, kind: categorical, side: item, dtype: int}
    - {name: price, kind: numeric, side: item, transform: log}
    - {name: seen, kind: history, shares: product, max_length: 10}
model: {backbone: din, embedding_dim: 8, hidden_units: [32]}
training: {epochs: 8, batch_size: 256, optimizer: {learning_rate: 0.01}}
"""
    )
    printed = tfctr(tmp_path, "run", "shop.yaml")
    assert "2 bad" in printed
    assert "2024-03-01" in printed
    dead = [
        json.loads(line)
        for path in (tmp_path / "work/shop/dead_letters").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sorted(row["row"] for row in dead) == [99, 199]
    assert auc(tmp_path, "shop-dcnv2") > 0.6
    assert "is done" in tfctr(tmp_path, "run", "shop.yaml")
    request = '{"customer": "C007", "product": "9", "price": "", "seen": "1|5", "basket": 3}\n'
    (tmp_path / "request.jsonl").write_text(request)
    with served(tmp_path, "shop-dcnv2") as address:
        (score,) = predict(
            tmp_path,
            *("shop-dcnv2", "request.jsonl", address),
            *("--config", "shop.yaml"),
            unknown="basket",
        )
    assert 0 < score < 1


def test_anonymous_ads_features_with_a_given_split(tmp_path: Path) -> None:
    """Tab-separated, no header line, no time and no user; hashed values, counts with a long tail,
    and a split in three files."""
    rng = np.random.default_rng(1)
    names = ["label", *(f"I{i}" for i in range(1, 5)), *(f"C{i}" for i in range(1, 9))]
    for part, rows in (("train", 6_000), ("valid", 1_500), ("test", 1_500)):
        counts = np.round(rng.lognormal(2, 2, (rows, 4))).astype(int) - 2
        hashed = rng.zipf(1.5, (rows, 8)) % 300
        click = rng.random(rows) < np.where(hashed[:, 0] % 3 == 0, 0.5, 0.1)
        with (tmp_path / f"{part}.txt").open("w") as file:
            for i in range(rows):
                numbers = ["" if rng.random() < 0.2 else str(count) for count in counts[i]]
                tokens = ["" if rng.random() < 0.1 else f"{t * 40503:08x}" for t in hashed[i]]
                file.write("\t".join([str(int(click[i])), *numbers, *tokens]) + "\n")
    (tmp_path / "ads.yaml").write_text(
        f"""
name: ads-deepfm
data:
  name: ads
  source: {{format: csv, separator: "\\t", columns: [{", ".join(names)}]}}
  label: {{column: label}}
  split: {{by: file, train: train.txt, valid: valid.txt, test: test.txt}}
  defaults: {{side: context, min_count: 2}}
  features:
    - {{name: "I*", kind: numeric, transform: log}}
    - {{name: "C*", kind: categorical}}
model: {{backbone: deepfm, embedding_dim: 8, hidden_units: [32]}}
training: {{epochs: 4, batch_size: 512, optimizer: {{learning_rate: 0.005}}}}
"""
    )
    tfctr(tmp_path, "run", "ads.yaml")
    assert auc(tmp_path, "ads-deepfm") > 0.6
    with served(tmp_path, "ads-deepfm") as address:
        rows = (tmp_path / "test.txt").read_text().splitlines()[:50]
        header = "\t".join(names)
        (tmp_path / "day.tsv").write_text("\n".join([header, *rows]) + "\n")
        online = predict(tmp_path, "ads-deepfm", "day.tsv", address, unknown="label")
    run(
        tmp_path,
        *("-m", "beam_pipelines.score", "--model", "saved_models/ads-deepfm"),
        *("--rows", "day.tsv", "--output", "scores"),
    )
    (file,) = (tmp_path / "scores").glob("*.parquet")
    batch = pq.read_table(file)["score"].to_pylist()
    np.testing.assert_allclose(online, batch, atol=1e-5)


def test_a_log_of_reviews(tmp_path: Path) -> None:
    """Gzipped JSON Lines: stars, lists, missing keys, nested keys that nobody needs, times in
    milliseconds, several lines of one second, a space in the file's name; and a Python session
    afterwards."""
    rng = np.random.default_rng(2)
    n = 6_000
    user, item = rng.integers(0, 80, n), rng.integers(0, 60, n)
    good = rng.random(n) < np.where(item % 5 < 2, 0.85, 0.25)
    with gzip.open(tmp_path / "my reviews.jsonl.gz", "wt", encoding="utf-8") as file:
        for i in range(n):
            row = {
                "reviewerID": f"A{user[i]}",
                "asin": f"B00{item[i]:03d}",
                "overall": float(rng.choice([4, 5] if good[i] else [1, 2, 3])),
                "unixReviewTime": 1_400_000_000_000 + 1_000 * (i // 3) * 600,
                "style": {"colour": "rot"},
                "reviewText": 'Schön.\n"Gut"',
            }
            if i % 4:
                row["category"] = ["Books", f"Shelf {item[i] % 5}"]
            if i % 7 == 0:
                row["price"] = None
            elif i % 7 < 5:
                row["price"] = float(item[i])
            file.write(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n")
    printed = tfctr(tmp_path, "init", "my reviews.jsonl.gz")
    assert printed.startswith("my reviews.yaml: from a sample of 6,000 rows, with ")
    assert printed.endswith("next: tfctr run 'my reviews.yaml'\n")
    with (tmp_path / "my reviews.yaml").open("a") as file:
        file.write(TRAINING)  # for a log of thousands of rows
    printed = tfctr(tmp_path, "run", "my reviews.yaml")
    assert "2014-05-1" in printed
    assert auc(tmp_path, "my-reviews-dcnv2") > 0.6
    session = """
import keras, tfctr
model = keras.models.load_model("work/my-reviews-dcnv2/model.keras")
data = tfctr.data.Dataset.open("work/my-reviews")
scores = tfctr.predict(model, data.test(512))
print(len(scores), float(scores.min()) >= 0, float(scores.max()) <= 1)
"""
    manifest = json.loads((tmp_path / "work/my-reviews/manifest.json").read_text())
    rows = manifest["splits"]["test"]["rows"]
    # TensorFlow's own lines are no affair of a library.
    assert run(tmp_path, "-c", session, quiet=False) == f"{rows} True True\n"


def test_a_tsv_of_ratings(tmp_path: Path) -> None:
    """No header line, Latin-1, one file a month; the next month's model starts from this one's."""
    rng = np.random.default_rng(3)
    for month in (1, 2, 3):
        n, users = 2_000, 40 + 10 * month
        user, item = rng.integers(0, users, n), rng.integers(0, 50, n)
        stars = np.clip(np.round(item % 5 + rng.normal(0, 1, n)) + 1, 1, 5).astype(int)
        seconds = 1_600_000_000 + 2_592_000 * month + np.arange(n) * 1_000
        lines = [f"{user[i]}\tCafé {item[i]}\t{stars[i]}\t{seconds[i]}\n" for i in range(n)]
        (tmp_path / f"ratings-{month}.tsv").write_text("".join(lines), encoding="latin-1")
    tfctr(tmp_path, "init", "ratings-1.tsv", "--output", "first.yaml")
    with (tmp_path / "first.yaml").open("a") as file:
        file.write(TRAINING)
    (tmp_path / "next.yaml").write_text(
        """
extends: first.yaml
name: next
data.name: three-months
data.source.events: ratings-*.tsv
starts_from: first.yaml
"""
    )
    printed = tfctr(tmp_path, "run", "next.yaml")
    assert "first-dcnv2" in printed
    assert auc(tmp_path, "next") > 0.6
    with served(tmp_path, "next") as address:
        header = "user\titem\trating\ttimestamp\n"
        rows = (tmp_path / "ratings-3.tsv").read_text(encoding="latin-1").splitlines()[:20]
        (tmp_path / "day.tsv").write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
        assert len(predict(tmp_path, "next", "day.tsv", address, unknown="rating")) == 20
