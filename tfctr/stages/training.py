"""Stages that train a model."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from tfctr.config import Training
from tfctr.data.manifest import write_manifest
from tfctr.stages.stage import Stage, versions


class TrainingStage(Stage):
    """A stage that trains a model and saves it, or a part of it.

    A subclass has its config `training`, and calls `train` in `make`.
    """

    training: Training

    def check(self) -> None:
        """Opens the strategy: a check may create models, which multi_worker must come before."""
        from tfctr.training.distribution import open_strategy

        open_strategy(self.training.strategy)

    def import_models(self) -> None:
        """Imports all that its model is made of, before the seed is set: see
        `tfctr.config.method.Method`."""

    def load(self) -> Any:
        """The model that lies at `path`."""
        import keras

        return keras.models.load_model(self.path, compile=False)

    def train(
        self,
        create: Callable[[], Any],
        data: Any,
        about: dict[str, Any],
        console: Console,
        save: Callable[[Any, str], None],
        objective: Callable[[Any], Any] | None = None,
    ) -> None:
        """Trains a model, and saves it at `path` by `save`.

        Args:
            create: returns the untrained model.
            data: a `tfctr.data.Dataset`.
            about: content of the manifest.
            console: for progress.
            save: writes the model, or the part to keep, to a path.
            objective: of the training. Defaults to clicks.
        """
        import keras

        from tfctr.training import distribution
        from tfctr.training.checkpoint import clean_up
        from tfctr.training.loop import train
        from tfctr.training.objectives import Clicks, LastEpoch

        # Before the seed is set: to import a library may draw from Python's random numbers.
        self.import_models()
        config, folder, path, key = self.training, self.folder, self.path, self.key()
        strategy = distribution.open_strategy(config.strategy)
        keras.utils.set_random_seed(config.seed)
        with strategy.scope(), _precision(config.precision):
            model = create()
            model.build()
        start = [(v, keras.ops.convert_to_numpy(v)) for v in model.variables if config.refit]
        writes = distribution.is_chief(strategy)
        checkpoint_key = folder / "checkpoint.key"
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            if not checkpoint_key.is_file() or checkpoint_key.read_text() != key:
                clean_up(folder)  # files of another config
            checkpoint_key.write_text(key)
            self.manifest_path.unlink(missing_ok=True)
        distribution.wait(strategy)
        purpose = objective(model) if objective else Clicks(data, config, model.reads)
        state = train(model, data, config, folder, console, purpose)
        found: dict[str, Any] = {
            "rows": {split: data.num_rows(split) for split in (config.rows, "valid")},
            "best_epoch": state.best_epoch + 1,
            f"best_{purpose.chosen_by}": state.best_score,
            "epochs": state.history,
        }
        if config.refit:
            rows = sum(found["rows"].values())
            console.print(
                f"[bold]refit[/] on all {rows:,} training and validation rows, for "
                f"{found['best_epoch']} epochs"
            )
            for variable, value in start:
                variable.assign(value)
            again = train(model, data, config, folder, console, LastEpoch(config), state)
            found["refit"] = {"rows": rows, "epochs": again.history}
        if writes:
            temporary = path.with_suffix(f".part{path.suffix}")
            save(model, str(temporary))
            if path.is_dir():
                shutil.rmtree(path)
            temporary.rename(path)
            write_manifest(
                {
                    "key": key,
                    **about,
                    "training": config.model_dump(mode="json"),
                    "parameters": model.count_params(),
                    **found,
                    "versions": versions(),
                },
                str(self.manifest_path),
            )
        distribution.wait(strategy)  # all have read the best weights
        if writes:
            clean_up(folder)
            checkpoint_key.unlink()

    @property
    def by_all_workers(self) -> bool:  # type: ignore[override]
        return self.training.strategy == "multi_worker"


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Layers that are created in this context compute in this precision."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
