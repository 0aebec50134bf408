"""An exported graph answers through TensorFlow's C API alone, which is how TF Serving loads it."""

import pickle
import resource
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.raw_rows import (
    NUM_ROWS,
    ROWS,
    SCHEMA,
    model_scores,
    rank_inputs,
    raw_tensors,
    serialized_examples,
)
from tfctr.serving.c_session import CSession, SessionError, Strings
from tfctr.serving.model_directory import signature_defs

ALONE = """
import pickle, sys
from tfctr.serving.c_session import CSession
session = CSession(sys.argv[1])
asked = pickle.load(sys.stdin.buffer)
answers = [session.run(inputs, outputs) for inputs, outputs in asked]
assert not {"tensorflow", "keras"} & set(sys.modules)
pickle.dump(answers, sys.stdout.buffer)
"""


@pytest.fixture(scope="module")
def session(exported: Path) -> CSession:
    return CSession(exported)


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> tuple[CSession, str, str, str]:
    """A graph that answers the strings that it was sent, and their lengths; its tensors."""

    class Echo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def echo(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"text": tf.strings.join([text, ""]), "length": tf.strings.length(text)}

    path = tmp_path_factory.mktemp("echo")
    echo = Echo()
    tf.saved_model.save(echo, str(path), signatures={"serving_default": echo.echo})
    definition = signature_defs(path)["serving_default"]
    outputs = definition.outputs
    names = definition.inputs["text"].name, outputs["text"].name, outputs["length"].name
    return CSession(path), *names


def by_tensor(
    path: Path, name: str, inputs: dict[str, tf.Tensor], output: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    definition = signature_defs(path)[name]
    arrays = {definition.inputs[name].name: value.numpy() for name, value in inputs.items()}
    return arrays, [definition.outputs[output].name]


def test_a_process_without_tensorflow_s_python_answers_what_the_model_does(
    model: Any, exported: Path
) -> None:
    candidates, pairs = rank_inputs(SCHEMA, 1, NUM_ROWS)
    rows = model_scores(model, ROWS)
    examples = {"inputs": tf.constant(serialized_examples(ROWS))}
    asked = [
        by_tensor(exported, "serving_default", raw_tensors(ROWS), "scores"),
        by_tensor(exported, "regress", examples, "outputs"),
        by_tensor(exported, "rank", candidates, "scores"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported)],
        input=pickle.dumps(asked),
        capture_output=True,
        check=True,
    )
    expected = [rows, rows, model_scores(model, pairs)[np.newaxis]]
    for answer, scores in zip(pickle.loads(done.stdout), expected, strict=True):
        np.testing.assert_allclose(next(iter(answer.values())), scores, atol=1e-6)


@pytest.mark.slow
def test_it_answers_many_threads(exported: Path, session: CSession, model: Any) -> None:
    arrays, outputs = by_tensor(exported, "serving_default", raw_tensors(ROWS), "scores")

    def ask(_: int) -> np.ndarray:
        return session.run(arrays, outputs)[outputs[0]]

    with futures.ThreadPoolExecutor(8) as pool:
        for scores in pool.map(ask, range(200)):
            np.testing.assert_allclose(scores, model_scores(model, ROWS), atol=1e-6)


def test_strings_of_any_size_go_in_and_come_out(strings: tuple[CSession, str, str, str]) -> None:
    session, text, same, length = strings
    texts = [b"", b"a", b"\0\xff", "größer".encode(), b"x" * 22, b"y" * 23, b"z" * 100_000]
    found = session.run({text: np.array(texts, object)}, [length, same])
    assert found[same].tolist() == texts
    assert found[length].tolist() == [len(text) for text in texts]
    assert session.run({text: np.zeros(0, object)}, [same])[same].shape == (0,)
    given = Strings(b"greengrass", np.array([[5, 0], [0, 2]]), np.array([[5, 5], [0, 3]]))
    parts = session.run({text: given[:1]}, [same])[same], session.run({text: given}, [same])[same]
    assert [part.tolist() for part in parts] == [
        [[b"grass", b"green"]],
        [[b"grass", b"green"], [b"", b"een"]],
    ]
    assert session.run({text: given[2:]}, [same])[same].shape == (0, 2)


def test_requests_leave_no_memory_behind(strings: tuple[CSession, str, str, str]) -> None:
    session, text, same, _ = strings
    asked = {text: np.array([b"z" * 1_000_000] * 8, object)}
    session.run(asked, [same])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(50):
        session.run(asked, [same])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # of 800,000 KB


def test_what_is_wrong_is_said(tmp_path: Path, session: CSession) -> None:
    with pytest.raises(SessionError, match="Could not find SavedModel"):
        CSession(tmp_path)
    with pytest.raises(SessionError, match="no tensor 'nowhere:0'"):
        session.run({}, ["nowhere:0"])
    with pytest.raises(SessionError, match="complex128"):
        session.run({"serving_default_user_id:0": np.zeros(1, complex)}, [])
