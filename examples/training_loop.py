"""# A training loop of your own

The steps of `fit` in plain TensorFlow, for what Keras' `fit` does not do.
"""

import tensorflow as tf

import tfctr

log = tfctr.data.World(num_users=200, num_items=100, num_events=4000).events(0, 4000)
schema = [
    {"name": "user_id", "kind": "categorical", "side": "user"},
    {"name": "item_id", "kind": "categorical", "side": "item", "min_count": 2},
    {"name": "device", "kind": "categorical", "side": "context"},
]
data = tfctr.data.Dataset.from_dataframe(
    log, schema, label="click", time="timestamp", user="user_id", item="item_id"
)

model = tfctr.backbones.DCNv2(data.schema, embedding_dim=8, hidden_units=(16,))
model.build()  # creates the weights, which the first call would create otherwise
optimizer = tfctr.optimizers.LazyAdam(1e-2, embedding_l2=1e-4)
optimizer.build(model.trainable_variables)
log_loss = tfctr.models.LogLoss()


@tf.function
def step(features, labels):
    with tf.GradientTape() as tape:
        logits = model(features, training=True)
        loss = log_loss(labels, logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)  # sparse rows stay sparse
    return loss


for epoch in range(3):
    losses = [float(step(features, labels)) for features, labels in data.train(256)]
    # Rows that the last batches did not read get the L2 of the steps since then.
    tfctr.optimizers.catch_up(optimizer, model.trainable_variables)
    measured = tfctr.evaluate(model, data)["valid"]
    mean = sum(losses) / len(losses)
    print(f"epoch {epoch + 1}: loss {mean:.4f}, AUC {measured['auc']:.4f}")

tfctr.metrics.print_report(tfctr.evaluate(model, data))
model.save("model.keras")
