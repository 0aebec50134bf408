"""# A backbone of your own

A backbone is its layers and `represent`: from the fields `[B, F, D]` to the input of the last
layer. Embedding, the loss, files, methods around it and serving are the same for all.
"""

# %%
import keras
from keras import ops

import tfctr


# %% `register` lets a run config name it, `backbone: gated_sum`, and lets Keras load its files.
@tfctr.backbones.register("gated_sum")
class GatedSum(tfctr.backbones.Backbone):
    """A gate for each field, computed from all of them, and an MLP on the gated sum.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        hidden_units: widths of the MLP. Defaults to `(32,)`.

    `represent` takes `[B, F, D]` and gives `[B, hidden_units[-1]]`.
    """

    def __init__(self, schema, embedding_dim=16, hidden_units=(32,), **kwargs):
        super().__init__(schema, embedding_dim, **kwargs)
        self.hidden_units = tuple(hidden_units)  # arguments are kept, so that it can be saved
        self.gate = keras.layers.Dense(1, activation="sigmoid", name="gate")
        self.deep = tfctr.layers.MLP(hidden_units, name="deep")

    def represent(self, embeddings, training=False):
        context = ops.mean(embeddings, axis=1, keepdims=True)
        gates = self.gate(embeddings * context)  # [B, F, 1]
        return self.deep(ops.sum(gates * embeddings, axis=1), training=training)


# %% A generated log: users who click, or not, on items shown to them.
log = tfctr.data.World(num_users=200, num_items=100, num_events=4000).events(0, 4000)
schema = [
    {"name": "user_id", "kind": "categorical", "side": "user"},
    {"name": "item_id", "kind": "categorical", "side": "item", "min_count": 2},
    {"name": "hour", "kind": "numeric", "side": "context"},
    {"name": "device", "kind": "categorical", "side": "context"},
]
data = tfctr.data.Dataset.from_dataframe(log, schema, label="click", time="timestamp")

# %%
model = GatedSum(data.schema, embedding_dim=8)
print(model.name, model.count_params())
model.compile(tfctr.optimizers.LazyAdam(1e-2), metrics=[tfctr.metrics.AUC()])
model.fit(data.train(256), validation_data=data.valid(256), epochs=2, verbose=2)

# %%
model.save("gated_sum.keras")
loaded = keras.models.load_model("gated_sum.keras")
test = data.test(256)
assert (tfctr.predict(loaded, test) == tfctr.predict(model, test)).all()
