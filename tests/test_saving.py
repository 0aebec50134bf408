"""`keras.models.load_model` after `import tfctr` alone, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.layers.test_layers import INPUTS, SCHEMA
from tfctr import backbones
from tfctr.frameworks.rok import KnowledgeBase, RokStudent

LOAD = """
import sys
import tfctr
assert "keras" not in sys.modules and "tensorflow" not in sys.modules
import keras
import json, random
import numpy as np
registered = sorted(k for k in keras.saving.get_custom_objects() if k.startswith("tfctr>"))
student = keras.models.load_model(sys.argv[1])
inputs = dict(np.load(sys.argv[2]))
logits = np.asarray(student(inputs)).tolist()
state = random.getstate()
from importlib import import_module
import pkgutil
for room in ("backbones", "frameworks", "language", "layers", "metrics", "models", "optimizers"):
    package = import_module("tfctr." + room)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith((".commands", ".report")):
            import_module(module.name)
classes = {k: v for k, v in keras.saving.get_custom_objects().items() if k.startswith("tfctr>")}
assert all(isinstance(v, type) for v in classes.values()), classes
print(json.dumps([registered, sorted(classes), logits, random.getstate() == state]))
"""


def test_a_file_is_loaded_after_importing_tfctr_alone(tmp_path: Path) -> None:
    backbone = backbones.DCNv2(SCHEMA, embedding_dim=4, hidden_units=(8,), num_cross_layers=1)
    knowledge = KnowledgeBase(backbone.schema, 2, 3, 4, (8,), 0.0)
    student = RokStudent(backbone, knowledge, ("instance",), tuned=False)
    student.build()
    student.compile("adam")
    student.save(tmp_path / "model.keras", include_optimizer=False)
    np.savez(tmp_path / "inputs.npz", **INPUTS)
    command = [sys.executable, "-c", LOAD, "model.keras", "inputs.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    deferred, registered, logits, is_same_state = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(logits, student(INPUTS), atol=1e-5)
    assert deferred == registered  # each class is found, also one that is decorated in another way
    assert len(deferred) > 50
    # A run that imports a method's models after its seed is set gives the same numbers.
    assert is_same_state
