"""New versions take over, and broken ones do not."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    prediction_log_pb2,
)

from tests.serving.raw_rows import small_version
from tests.serving.requests import predict_request, rest, versions_of, wait_until
from tfctr.serving import Client, Server, ServingError


def test_a_new_version_takes_over_without_a_failed_request(tmp_path: Path) -> None:
    tokens = ["a", "b", "c", "d"]
    small_version(tmp_path, 1, tokens)
    with (
        Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0, poll_seconds=0.05) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "m") as client,
    ):
        old = client.predict({"item": tokens})
        answers: list[np.ndarray] = []
        failures: list[Exception] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(client.predict({"item": tokens}))
                except Exception as error:
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        model = small_version(tmp_path, 2, tokens[::-1])
        wait_until(lambda: versions_of(server, "m") == {"1": "END", "2": "AVAILABLE"})
        count = len(answers)
        wait_until(lambda: len(answers) > count + 5)
        stop.set()
        for thread in threads:
            thread.join()
        new = client.predict({"item": tokens})
        ids = np.array([6, 5, 4, 3])
        np.testing.assert_allclose(new, tf.sigmoid(model({"item": ids}, training=False)), atol=1e-6)
        assert not failures
        assert not np.allclose(old, new)
        assert all(np.array_equal(a, old) or np.array_equal(a, new) for a in answers)
        with (
            Client(f"127.0.0.1:{server.grpc_port}", "m", version=1) as first,
            pytest.raises(
                ServingError, match=r"NOT_FOUND: Servable not found for request: Specific\(m, 1\)"
            ),
        ):
            first.predict({"item": tokens})
        shutil.rmtree(tmp_path / "m" / "2")  # back to the one before
        wait_until(lambda: versions_of(server, "m") == {"1": "AVAILABLE", "2": "END"})
        np.testing.assert_array_equal(client.predict({"item": tokens}), old)


def test_a_broken_version_is_reported_and_never_served(tmp_path: Path) -> None:
    tokens = ["a", "b", "c", "d"]
    small_version(tmp_path, 1, tokens)
    with (
        Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0, poll_seconds=0.05) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "m") as client,
    ):
        scores = client.predict({"item": tokens})
        broken = tmp_path / "m" / "2"
        shutil.copytree(tmp_path / "m" / "1", tmp_path / "copy")
        (tmp_path / "copy" / "variables" / "variables.index").write_bytes(b"no")
        (tmp_path / "copy").rename(broken)
        wait_until(lambda: versions_of(server, "m") == {"1": "AVAILABLE", "2": "END"})
        statuses = rest(server, "GET", "/v1/models/m/versions/2")["model_version_status"]
        assert statuses[0]["status"]["error_code"] != "OK"
        assert statuses[0]["status"]["error_message"]
        np.testing.assert_array_equal(client.predict({"item": tokens}), scores)
        # Repaired in place, it is tried again.
        good = tmp_path / "m" / "1" / "variables" / "variables.index"
        shutil.copyfile(good, broken / "variables" / "variables.index")
        wait_until(lambda: versions_of(server, "m") == {"1": "END", "2": "AVAILABLE"})


def test_warm_up_requests_that_fail_keep_a_version_out(tmp_path: Path) -> None:
    small_version(tmp_path, 1, ["a", "b", "c", "d"])
    request = predict_request({"colour": tf.constant(["red"])})
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    extra = tmp_path / "m" / "1" / "assets.extra"
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(ValueError, match=r"version 1: .*warm-up request failed.*colour"):
        Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0).start()
