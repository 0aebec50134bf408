"""`keras.models.load_model` after `import tfctr` alone, in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.layers.test_layers import INPUTS, SCHEMA
from tfctr import backbones
from tfctr.frameworks.rok import KnowledgeBase, RokStudent

ROOT = Path(__file__).parents[1]
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
import tfctr.frameworks, tfctr.language
for package in (tfctr.frameworks, tfctr.language):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith((".commands", ".report")):
            import_module(module.name)
print(json.dumps([registered, logits, random.getstate() == state]))
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
    registered, logits, is_same_state = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(logits, student(INPUTS), atol=1e-5)
    text = "\n".join(path.read_text() for path in (ROOT / "tfctr").rglob("*.py"))
    keras_classes = (
        r'^@(?:keras\.saving\.register_keras_serializable|register)\("\w+"\)\nclass (\w+)'
    )
    found = re.findall(keras_classes, text, re.MULTILINE)
    assert len(found) > 50
    assert registered == sorted(f"tfctr>{name}" for name in found)
    # A run that imports a method's models after its seed is set gives the same numbers.
    assert is_same_state
