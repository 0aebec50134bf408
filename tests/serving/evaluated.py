"""What a server answers, beside what the evaluation of the same rows says."""

from typing import Any

import numpy as np

from tfctr.data import Dataset
from tfctr.data.raw_rows import raw_rows
from tfctr.serving import Client, Server
from tfctr.stages import Run


def assert_served_as_evaluated(
    run: Run, number: int, model: Any = None, version: int | None = None
) -> None:
    """The first test rows of a run have the same scores in `predict`, and candidates in `rank`.

    Args:
        run: exported.
        number: of rows.
        model: that is served. Defaults to the run's.
        version: of the export. Defaults to the latest.
    """
    data, model = Dataset.open(run.data_folder), model or run.load_model()
    rows = raw_rows(run.config.data, data, "test", number).to_pylist()
    logits = model.predict(data.test(8192, features=model.reads), verbose=0)[: len(rows)]
    names = [feature.name for feature in model.served_schema.inputs]
    items = [feature.name for feature in model.served_schema.side("item")]
    with (
        Server({"student": run.export_folder}, grpc_port=0, rest_port=0) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "student", version=version) as client,
    ):
        columns = {name: [row.get(name) for row in rows] for name in names}
        scores = client.predict(columns)
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
        candidates = {name: columns[name] for name in items}
        for row in rows[::10] if items else []:
            user = {name: row.get(name) for name in names if name not in items}
            alone = client.predict({n: [user[n]] * len(rows) for n in user} | candidates)
            np.testing.assert_allclose(client.rank(user, candidates), alone, atol=1e-5)
