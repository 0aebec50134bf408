"""# Serve a model, and ask it from Python and with curl

The exported folder works with the `tensorflow/serving` image too; docs/serving.md describes both.
On a shell the server is `tfctr serve saved_models/shop`, gRPC on 8500 and REST on 8501.
"""

import json
import subprocess

import tfctr

log = tfctr.data.World(num_users=200, num_items=100, num_events=4000).events(0, 4000)
schema = [
    {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
    {"name": "item_id", "kind": "categorical", "side": "item", "dtype": "int", "min_count": 2},
    {"name": "device", "kind": "categorical", "side": "context"},
]
data = tfctr.data.Dataset.from_dataframe(log, schema, label="click", time="timestamp")
model = tfctr.backbones.FM(data.schema, embedding_dim=8)
model.compile(tfctr.optimizers.LazyAdam(1e-2))
model.fit(data.train(256), epochs=2, verbose=2)
tfctr.serving.export(model, data, "saved_models/shop")

# Raw values go in: the graph has the vocabularies.
rows = log.slice(0, 5).select(["user_id", "item_id", "device"])
user = {"user_id": 7, "device": "mobile"}
with (
    tfctr.serving.Server({"shop": "saved_models/shop"}, grpc_port=0, rest_port=0) as server,
    tfctr.serving.Client(f"127.0.0.1:{server.grpc_port}", model="shop") as client,
):
    print("a score a row:", client.predict(rows))
    print("candidates for one user:", client.rank(user, {"item_id": [3, 1, 4, 15]}))

    url = f"http://127.0.0.1:{server.rest_port}/v1/models/shop:predict"
    body = {"signature_name": "serving_default", "inputs": rows.to_pydict()}
    answer = subprocess.check_output(["curl", "--silent", "--data", json.dumps(body), url])
    print("with curl:", json.loads(answer)["outputs"])
