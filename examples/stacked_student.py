"""# Two methods around one backbone

A student wraps a backbone, or another student. Here new items get an embedding made of their brand,
and around this each item's vector from elsewhere, such as of its text, makes a further field.
"""

import keras
import numpy as np

import tfctr
from tfctr.frameworks.cold_items import ColdItemsStudent
from tfctr.frameworks.vectors import VectorsStudent

world = tfctr.data.World(num_users=200, num_items=100, num_events=4000)
items = world.items().select(["item_id", "brand", "price"])
log = world.events(0, 4000).join(items, "item_id")
schema = [
    {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
    {"name": "item_id", "kind": "categorical", "side": "item", "dtype": "int", "min_count": 3},
    {"name": "brand", "kind": "categorical", "side": "item"},
    {"name": "price", "kind": "numeric", "side": "item", "transform": "log"},
]
data = tfctr.data.Dataset.from_dataframe(
    log, schema, label="click", time="timestamp", user="user_id", item="item_id"
)

backbone = tfctr.backbones.DeepFM(data.schema, embedding_dim=8, hidden_units=(16,))
inner = ColdItemsStudent(
    backbone,
    feature="item_id",
    width=0,  # of vectors of its own: none, the brand is all that it reads
    attributes=["brand"],
    hidden_units=[8],
    dropout=0.0,
    rate=0.2,  # of the training rows are read as if their item were new
    alignment="regression",
    weight=0.1,
    temperature=0.1,
)
student = VectorsStudent(data.schema, inner, features=["item_id"], widths=[4], fields=[1])
student.build()

# The table of vectors, by id; an id without one has zeros.
vectors = np.random.default_rng(0).normal(size=(data.schema["item_id"].num_ids, 4))
vectors[: tfctr.schema.FIRST_TOKEN_ID] = 0
student.tables[0].assign(vectors)

student.compile(tfctr.optimizers.LazyAdam(1e-2), metrics=[tfctr.metrics.AUC()])
student.fit(data.train(256), validation_data=data.valid(256), epochs=2, verbose=2)
new = log.slice(0, 2).set_column(log.column_names.index("item_id"), "item_id", [[10_001, 10_002]])
print(tfctr.predict(student, new))  # two items that no row of training has
version = tfctr.serving.export(student, data, "saved_models/stacked")

student.save("stacked.keras")
loaded = keras.models.load_model("stacked.keras")
assert loaded.backbone.backbone.name == "deepfm"
