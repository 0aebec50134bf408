"""# A DataFrame of your own

From a DataFrame to a model, its metrics, and scores in the rows' order. The log is generated here;
yours has one row per impression, with a column of 0 and 1 for the click.
"""

# %%
import keras
import numpy as np
import pandas

import tfctr

# %%
rng = np.random.default_rng(1)
rows = 4000
movie = rng.integers(0, 50, rows)
df = pandas.DataFrame(
    {
        "user": [f"u{i}" for i in rng.integers(0, 100, rows)],
        "movie": movie,
        "price": 2 + movie / 10,
        "genres": np.where(movie % 2, "Drama|War", "Comedy"),
        "time": pandas.Timestamp("2024-01-01") + pandas.to_timedelta(np.arange(rows), unit="min"),
        "click": (rng.random(rows) < 0.1 + 0.4 * (movie % 3 == 0)).astype(int),
    }
)

# %% The features are guessed. `schema=[...]` gives them; docs/dataframes.md describes it.
data = tfctr.data.Dataset.from_dataframe(df, label="click", time="time", user="user", item="movie")
for feature in data.schema:
    print(feature.name, feature.kind, feature.side)

# %%
model = tfctr.backbones.DCNv2(data.schema, embedding_dim=8, hidden_units=(16,))
model.summary()
model.compile(tfctr.optimizers.LazyAdam(1e-2), metrics=[tfctr.metrics.AUC()])
model.fit(data.train(256), validation_data=data.valid(256), epochs=3, verbose=2)

# %% All metrics, over whole splits.
tfctr.metrics.print_report(tfctr.evaluate(model, data))

# %%
df["probability"] = tfctr.predict(model, df)
print(df.groupby(df["movie"] % 3 == 0)["probability"].mean())

# %% A file of the model has no vocabularies: scores of a loaded one need the dataset.
model.save("model.keras")
loaded = keras.models.load_model("model.keras")
again = tfctr.predict(loaded, df, data=data)
assert np.allclose(again, df["probability"], atol=1e-5)
