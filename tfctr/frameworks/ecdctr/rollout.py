"""A rollout: every day the served model is evaluated, trained further and exported (E-CDCTR).

At the end of day `d`, when all its rows have arrived:

1. the version that was served on `d` is evaluated on the ads rows of `d`, which it has not seen;
2. if it is time, the tables of the methods around the model are made again, of all days so far;
   before the first training, all that the methods need;
3. if a period of the tiny model is over, it is trained on that period's organic rows, and a
   snapshot of its user and item vectors is taken;
4. if it is time, the complete model is trained on the latest organic rows;
5. the ads model starts from the complete model if that is new; else it is trained further;
6. the ads model is exported, to be served on `d + 1`.

Each day's step leaves a folder with a manifest. So a rollout resumes anywhere, and can be run one
day at a time; the result is the same.
"""

import datetime
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from tfctr.config import ConfigError, Training, digest
from tfctr.config.method import Method
from tfctr.data import files
from tfctr.data.day_log import DayLog
from tfctr.data.manifest import read_manifest, write_manifest
from tfctr.data.snapshots import SIDES, Snapshot, finished_before
from tfctr.data.summary import warnings_of_days
from tfctr.frameworks.ecdctr.config import RolloutConfig
from tfctr.frameworks.ecdctr.methods import FOLDER, build_methods, methods_of
from tfctr.frameworks.ecdctr.schedule import (
    DAY,
    State,
    ads_start,
    complete_is_due,
    due,
    methods_are_due,
    tiny_periods,
)
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, Schema
from tfctr.stages.export import Version
from tfctr.stages.stage import Stage, build, build_missing, folder_lock, versions
from tfctr.stages.student import check_model, import_models, stand_in, wrapped
from tfctr.stages.training import TrainingStage


class Rollout:
    """A rollout and the folders of its artefacts.

    - `log_folder`, `<work>/<days' name>`: the log by days, shared by rollouts;
    - `folder`, `<work>/<rollout's name>`: `days/<day>/`, with the models, `metrics.json`,
      `evaluated.parquet` (the day's ads rows: label, logit, user_key, segments) and `step.json`;
      `snapshots/<until>/`; `joined/<day>/`; `methods/`, with what the methods are made of;
    - `export_folder`: the versions of the SavedModel; None if nothing is exported.

    Args:
        config: of the rollout.
        work: the folder of all artefacts.
        console: for progress. Defaults to a new one.
    """

    def __init__(self, config: RolloutConfig, work: Path, console: Console | None = None) -> None:
        self.config = config
        self.folder = work / config.name
        self.log_folder = work / config.days.name
        self.export_folder: Path | None = None
        if config.export:
            self.export_folder = Path(config.export.directory) / config.name
        self.console = console or Console()

    def run(
        self, through: datetime.date | None = None, beam_args: list[str] | None = None
    ) -> datetime.date | None:
        """Runs the steps that are not done yet.

        Args:
            through: the last day, which must be over. Defaults to the config's `end`.
            beam_args: Beam's pipeline options.

        Returns:
            The first missing day, if the config says to wait for it; None if all steps are done.

        Raises:
            ConfigError: there is no last day, or it is before the first step; a model of the config
                cannot be created.
            DataError: as `beam_pipelines.days.write_days`.
        """
        from beam_pipelines.days import write_days

        config, first = self.config, self.config.start - DAY
        last = self._last_day(through)
        self._check_models()
        with folder_lock(self.log_folder, self.console):
            log = write_days(config.days, last, str(self.log_folder), beam_args)
        with folder_lock(self.folder, self.console):
            self._delete_results_of_other_config()
            state = State()
            for number in range((last - first).days + 1):
                day = first + number * DAY
                absent = [d for d in config.days.days_through(day) if d not in log.days]
                if absent and config.missing == "wait":
                    self.console.print(
                        f"[bold]rollout[/] waits for {absent[0]}: {self._where(absent)}"
                    )
                    return absent[0]
                state = self._step(day, state, log, beam_args)
        return None

    def print_plan(self, through: datetime.date | None = None) -> None:
        """Prints for each day what its step has done, or what it would do if all days were there.

        Args:
            through: the last day. Defaults to the config's `end`.

        Raises:
            ConfigError: as for `run`.
        """
        last = self._last_day(through)
        is_of_config = self._is_of_config()
        state, day = State(), self.config.start - DAY
        while day <= last:
            found = read_manifest(self.folder / "days" / str(day) / "step.json")
            if not is_of_config or found is None or found["from"] != state.key:
                break
            state, version = State(**found["state"]), found["state"]["version"]
            what = "missing, skipped" if found.get("missing") else f"ads {state.ads}"
            self.console.print(
                f"done  [bold]{day}[/] {what}{f', served {version}' if version else ''}",
                soft_wrap=True,
            )
            day += DAY
        while day <= last:
            words, state = due(self.config, state, day)
            self.console.print(f"build [bold]{day}[/] {'; '.join(words)}", soft_wrap=True)
            day += DAY

    def _last_day(self, through: datetime.date | None) -> datetime.date:
        config, first = self.config, self.config.start - DAY
        last = through or config.end
        if last is None:
            raise ConfigError(f"{config.name}: no last day; set `end`, or give --through DAY")
        if last < first:
            raise ConfigError(
                f"{config.name}: found the last day {last}; the first step is on {first}, the day "
                "before start"
            )
        return last

    def _check_models(self) -> None:
        config = self.config
        schema = stand_in(config.days.data)
        if config.tiny is not None:
            tiny = partial(config.tiny.model.create, schema)
            check_model(tiny, f"{config.name}: tiny.model: ")
        check_model(lambda: student_of(config, schema, {})[0], f"{config.name}: model: ")

    def _where(self, absent: list[datetime.date]) -> str:
        source = self.config.days.data.source
        return (
            f"no rows of {len(absent)} day{'s' if absent[1:] else ''} in "
            f"{getattr(source, 'events', source.format)}; run again when they have arrived, or set "
            "missing: skip"
        )

    def _is_of_config(self) -> bool:
        """Whether the results that are there are of this config."""
        found = read_manifest(self.folder / "rollout.json") or {}
        return found.get("key") == self._config_key

    def _delete_results_of_other_config(self) -> None:
        if self._is_of_config():
            return
        for name in ("days", "snapshots", "joined", FOLDER):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = str(self.folder / "rollout.json")
        write_manifest({"key": self._config_key, "versions": versions()}, path)

    @property
    def _config_key(self) -> str:
        return digest(self.config, without=["end", "export", "missing"])

    # --- a step -----------------------------------------------------------------------------

    def _step(
        self, day: datetime.date, state: State, log: DayLog, beam_args: list[str] | None
    ) -> State:
        folder = self.folder / "days" / str(day)
        found = read_manifest(folder / "step.json")
        if found is not None and found["from"] == state.key:
            return State(**found["state"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "step.json").unlink(missing_ok=True)
        start = time.perf_counter()
        manifest: dict[str, Any] = {"from": state.key, "day": str(day)}
        known = {d: log.days[d] for d in log.days if d <= day}
        key = digest([self._config_key, state.key, str(day), list(known.values())])
        if day not in log.days:
            self.console.print(f"[bold]{day}[/] is missing: the served version remains")
            after = state.changed(key=key)
            write_manifest(manifest | {"missing": True, "state": asdict(after)}, _step_path(folder))
            return after
        step = _Step(self, day, log, state, key, folder, beam_args)
        for warning in warnings_of_days(log, step.new):
            self.console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
        if state.ads:
            manifest["metrics"] = step.evaluate()
        state = step.train()
        if self.export_folder:
            state = state.changed(version=step.export(state))
        manifest |= {
            "rows_read": step.rows_read,
            "seconds": round(time.perf_counter() - start, 3),
            "late": step.late,
            "state": asdict(state),
        }
        write_manifest(manifest, _step_path(folder))
        self._print(manifest)
        return state

    def _print(self, manifest: dict[str, Any]) -> None:
        metrics, read = manifest.get("metrics") or {}, manifest["rows_read"]
        shown = ", ".join(
            f"{name.upper()} {metrics[name]:.4f}"
            for name in ("auc", "gauc")
            if metrics.get(name) is not None
        )
        rows = ", ".join(f"{name} {number:,}" for name, number in read.items())
        version = manifest["state"]["version"]
        self.console.print(
            f"[bold]{manifest['day']}[/] {shown or 'not evaluated'}; rows read: {rows or 'none'}; "
            f"{manifest['seconds']:.1f} s{f'; version {Path(version).name}' if version else ''}",
            soft_wrap=True,
        )


class _Step:
    """The work of one day."""

    def __init__(
        self,
        rollout: Rollout,
        day: datetime.date,
        log: DayLog,
        state: State,
        key: str,
        folder: Path,
        beam_args: list[str] | None,
    ) -> None:
        self.rollout = rollout
        self.config = rollout.config
        self.console = rollout.console
        self.day = day
        self.log = log
        self.before = state
        self.key = key
        self.folder = folder
        self.beam_args = beam_args
        self.days = [d for d in self.config.days.days_through(day) if d in log.days]
        self.through = max(log.days[d]["number"] for d in self.days)
        self.rows_read: dict[str, int] = {}
        self._loaded: dict[str, Any] = {}  # saved models, by path
        self._methods: Mapping[str, Mapping[str, Stage]] = {}
        # Days are numbered in the order in which they arrived, so a late day is new too.
        self.new = [d for d in self.days if log.days[d]["number"] > state.through]
        self.late = [] if not state.ads else [str(d) for d in self.new if d < day]

    def evaluate(self) -> dict[str, Any] | None:
        """The metrics of the served version on the day's ads rows; None without rows."""
        from tfctr import metrics
        from tfctr.training.predict import EVALUATION_BATCH, check_finite, predict

        if not self.log.rows(self.day, "ads"):
            return None
        self._join(self.before.snapshots)
        data = self._data({"test": [(self.day, "ads")]}, self.before.through)
        model = self._load(self.before.ads)
        user, item = self._keys().values()
        columns = data.columns("test", ["label", "user_key", user, item])
        recent = self._data(
            {
                "recent": [
                    (d, domain)
                    for d in self.days
                    if 0 < (self.day - d).days <= self.config.inactive_days
                    for domain in ("organic", "ads")
                ]
            },
            self.before.through,
            reads_snapshots=False,
        )
        active = recent.columns("recent", ["user_key"])["user_key"]
        segments = {
            "unseen_users": columns[user] == OOV_ID,
            "unseen_items": columns[item] == OOV_ID,
            "inactive_users": (columns[user] != OOV_ID) & ~np.isin(columns["user_key"], active),
        }
        logits = predict(
            model, data.test(EVALUATION_BATCH, features=model.reads), str(self.day), self.console
        )
        check_finite(logits, model, data, "test")
        found = metrics.evaluate(columns["label"], logits, columns["user_key"], segments)
        evaluated = (
            {key: columns[key] for key in ("label", "user_key")} | {"logit": logits} | segments
        )
        files.write_parquet(str(self.folder / "evaluated.parquet"), evaluated)
        write_manifest(found, str(self.folder / "metrics.json"))
        return found

    def train(self) -> State:
        """Trains the models that are due, and returns the state at the end of the day."""
        state = self.before.changed(key=self.key, through=self.through)
        state = self._build_methods(state)
        state = self._train_tiny(state)
        self._join(state.snapshots)
        state, is_new = self._train_complete(state)
        return self._train_ads(state, is_new)

    def _build_methods(self, state: State) -> State:
        """Builds the methods' stages if they are due; else those of before are only loaded."""
        config, since = self.config, None
        if not config.frameworks:
            return state
        is_due = methods_are_due(config, state, self.day)
        day = self.day
        if state.methods_until:
            until = datetime.date.fromisoformat(state.methods_until)
            since = until, state.methods_through
            day = day if is_due else until - DAY
        self._methods = methods_of(
            config, self.log, day, self.rollout.folder, self.console, self.beam_args, since
        )
        if not is_due:
            return state
        starts = since is None or config.ads.restarts
        build_methods(config, self._methods, self.console, starts)
        return state.changed(methods_until=str(self.day + DAY), methods_through=self.through)

    def _train_tiny(self, state: State) -> State:
        tiny = self.config.tiny
        for since, until in tiny_periods(self.config, state, self.day):
            assert tiny is not None
            rows = [(d, "organic") for d in self.days if since <= d < until]
            name = f"tiny-{until}"
            path = self._train(name, rows, tiny.training, self._make_tiny, state.tiny)
            state = state.changed(tiny=path)
            self._take_snapshot(path, rows, since, until, state)
            snapshots = state.snapshots | {str(until): digest([self.key, name])}
            state = state.changed(snapshots=snapshots)
        return state

    def _take_snapshot(
        self,
        path: str,
        rows: Sequence[tuple[datetime.date, str]],
        since: datetime.date,
        until: datetime.date,
        state: State,
    ) -> None:
        """Writes the vectors of all users and items that the tiny model was ever trained on."""
        model = self._load(path)
        data = self._data({"train": rows}, self.through, reads_snapshots=False)
        ends = sorted(state.snapshots)
        last = Snapshot.read(self.rollout.folder / "snapshots" / ends[-1]) if ends else None
        tokens, vectors = {}, {}
        for side, name in self._keys().items():
            vocabulary = self.log.vocabulary(name, self.through)
            ids = np.unique(data.columns("train", [name])[name])
            if last is not None:
                ids = np.union1d(ids, np.flatnonzero(last.rows(side, vocabulary)[1]))
            ids = ids[ids >= FIRST_TOKEN_ID]
            tokens[side] = vocabulary.tokens.take(ids - FIRST_TOKEN_ID)
            vectors[side] = np.asarray(model.fields.rows(name, ids))
        snapshot = Snapshot(since, until, vectors["user"].shape[1], tokens, vectors)
        snapshot.write(self.rollout.folder / "snapshots" / str(until))

    def _join(self, snapshots: dict[str, str]) -> None:
        """Joins snapshots to the rows of all days before the next snapshot."""
        from beam_pipelines.snapshots import join_snapshots

        tiny, folder = self.config.tiny, self.rollout.folder
        if tiny is None:
            return
        ends = [datetime.date.fromisoformat(end) for end in snapshots]
        next_end = max(ends, default=self.config.days.first) + tiny.every * DAY
        chosen: dict[datetime.date, list[tuple[datetime.date, str]]] = {}
        for day in self.log.days:
            read = finished_before(ends, day, tiny.snapshots)
            wanted = [(end, snapshots[str(end)]) for end in read]
            manifest = read_manifest(folder / "joined" / str(day) / "manifest.json") or {}
            if day < next_end and manifest.get("snapshots") != [[str(e), k] for e, k in wanted]:
                chosen[day] = wanted
        if chosen:
            join_snapshots(
                self.log,
                chosen,
                folder / "snapshots",
                tiny.snapshots,
                self._snapshot_dim,
                folder / "joined",
                self.beam_args,
            )

    def _train_complete(self, state: State) -> tuple[State, bool]:
        """The state, and whether the complete model in it is new."""
        complete = self.config.complete
        if complete is None or not complete_is_due(self.config, state, self.day):
            return state, False
        rows = [(d, "organic") for d in self._window(complete.window)]
        path = self._train("complete", rows, complete.training, self._make, state.complete)
        return state.changed(complete=path, complete_until=str(self.day + DAY)), True

    def _train_ads(self, state: State, complete_is_new: bool) -> State:
        ads, complete = self.config.ads, self.config.complete
        start = ads_start(self.config, self.before, complete_is_new)
        days = self.new if start == "ads" else self._window(ads.window)
        domains = ("organic", "ads") if ads.domains == "both" else ("ads",)
        rows = [(d, domain) for d in days for domain in domains]
        training = ads.training
        if start == "ads":
            training = training.model_copy(update={"epochs": 1})
        earlier = {"ads": state.ads, "complete": state.complete, "scratch": ""}[start]
        resets = complete is not None and complete.reset_statistics and start == "complete"
        return state.changed(ads=self._train("ads", rows, training, self._make, earlier, resets))

    def export(self, state: State) -> str:
        """The path of the exported version, which is served from the next day on."""
        folder = self.rollout.export_folder
        assert folder is not None
        return str(build(_DayExport(self, state, folder), Console(quiet=True)))

    def _tables(self, state: State) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By side, the latest snapshots of all ids: their vectors `[ids, n * d]`, and which of
        them exist, `[ids, n]`."""
        assert self.config.tiny is not None
        ends = [datetime.date.fromisoformat(end) for end in state.snapshots]
        read = finished_before(ends, self.day + DAY, self.config.tiny.snapshots)
        found = [Snapshot.read(self.rollout.folder / "snapshots" / str(end)) for end in read]
        tables = {}
        for side, name in self._keys().items():
            vocabulary = self.log.vocabulary(name, self.through)
            shape = (vocabulary.size, self.config.tiny.snapshots)
            vectors, exist = np.zeros((*shape, self._snapshot_dim), np.float32), np.zeros(shape)
            for place, snapshot in enumerate(found):
                vectors[:, place], exist[:, place] = snapshot.rows(side, vocabulary)
            tables[side] = (vectors.reshape(len(vectors), -1), exist)
        return tables

    # --- shared by the methods above ---------------------------------------------------------

    def _train(
        self,
        what: str,
        rows: Sequence[tuple[datetime.date, str]],
        training: Training,
        make: Callable[[Schema], tuple[Any, list[tuple[Method, Any]]]],
        earlier: str,
        resets: bool = False,
    ) -> str:
        """Trains a model on these rows, and returns its path in the rollout's folder.

        Args:
            what: names the model's folder: "ads", "complete", "tiny-2024-02-26".
            rows: days and domains.
            training: how.
            make: returns the untrained model of a schema, and its methods' parts.
            earlier: path of the model that it starts from; "": from scratch.
            resets: whether the statistics of its batch normalisations are reset.
        """
        from tfctr.models.transfer import carry_on, reset_statistics

        rows = [part for part in rows if self.log.rows(*part)]
        if not rows and earlier and not resets:
            return earlier  # nothing to train on
        number = sum(self.log.rows(*part) for part in rows)
        name = what.partition("-")[0]
        read = number * training.epochs
        self.rows_read[name] = self.rows_read.get(name, 0) + read
        data = self._data(
            {"train": rows, "valid": []}, self.through, reads_snapshots=name != "tiny"
        )

        def create() -> Any:
            model, parts = make(data.schema)
            model.build()
            for method, part in parts:
                method.set_data(part, self._methods[method.name])
            if earlier:
                carry_on(model, self._load(earlier))
            else:
                for method, part in parts:
                    method.start(part, self._methods[method.name])
            if resets:
                reset_statistics(model)
            return model

        # Each day has its own order of rows, and its own initial vectors of new tokens.
        training = training.model_copy(update={"seed": training.seed + 1000 * self.day.toordinal()})
        message = f"[bold]{self.day}[/] {what}: {number:,} rows of {len(rows)} parts"
        key = digest([self.key, what])
        stage = _DayTraining(
            self.folder / what, training, key, create, data, read, message, self.config.frameworks
        )
        build_missing([stage], self.console)
        return str(stage.path.relative_to(self.rollout.folder))

    def _make_tiny(self, schema: Schema) -> tuple[Any, list[tuple[Method, Any]]]:
        assert self.config.tiny is not None
        return self.config.tiny.model.create(schema), []

    def _make(self, schema: Schema) -> tuple[Any, list[tuple[Method, Any]]]:
        """The untrained complete model or ads model: both have the same architecture."""
        return student_of(self.config, schema, self._methods)

    def _load(self, path: str) -> Any:
        """A saved model; it must not be changed."""
        import keras

        if path not in self._loaded:
            file = self.rollout.folder / path
            self._loaded[path] = keras.models.load_model(file, compile=False)
        return self._loaded[path]

    def _data(
        self,
        splits: dict[str, Sequence[tuple[datetime.date, str]]],
        through: int,
        reads_snapshots: bool = True,
    ) -> Any:
        from tfctr.data.days import DaysDataset

        joined = self.config.tiny is not None and reads_snapshots
        return DaysDataset(
            self.log, splits, through, self.rollout.folder / "joined" if joined else None
        )

    def _window(self, days: int | None) -> list[datetime.date]:
        """The days of the log among the latest `days` up to this one; None: all."""
        return [d for d in self.days if days is None or (self.day - d).days < days]

    def _keys(self) -> dict[str, str]:
        """The features that identify users and items, by side."""
        data = self.config.days.data
        return {side: getattr(data, side) for side in SIDES}

    @property
    def _snapshot_dim(self) -> int:
        return snapshot_dim(self.config, self.log.schema())


class _DayTraining(TrainingStage):
    """Trains a model on the rows of some days, for all epochs: `model.keras`."""

    name = "train"

    def __init__(
        self,
        folder: Path,
        training: Training,
        key: str,
        create: Callable[[], Any],
        data: Any,
        rows_read: int,
        message: str,
        methods: Sequence[Method],
    ) -> None:
        self.folder = folder
        self.path = folder / "model.keras"
        self.training = training
        self.made_from_key = key
        self.create = create
        self.data = data
        self.rows_read = rows_read
        self.message = message
        self.methods = methods

    @property
    def made_from(self) -> Any:
        return self.made_from_key  # includes the days before

    def import_models(self) -> None:
        import tfctr.frameworks.ecdctr.student  # noqa: F401

        import_models(self.methods)

    def make(self, console: Console) -> None:
        from tfctr.training.objectives import LastEpoch

        console.print(self.message)
        self.train(
            self.create,
            self.data,
            {"rows_read": self.rows_read},
            console,
            save=lambda model, at: model.save(at, include_optimizer=False),
            objective=lambda _: LastEpoch(self.training),
        )


class _DayExport(Version):
    """The version that is served from the next day on."""

    name = "export"

    def __init__(self, step: _Step, state: State, served: Path) -> None:
        super().__init__(served)
        self.step = step
        self.state = state
        self.folder = step.folder

    @property
    def made_from(self) -> Any:
        return self.step.key

    def write(self, console: Console) -> Path:
        from tfctr import serving
        from tfctr.frameworks.ecdctr.served import EcdctrServed
        from tfctr.serving.model_directory import tidy

        step = self.step
        model = step._load(self.state.ads)
        for method in step.config.frameworks:
            model = method.served(model)
        data = step._data({"train": [(step.days[-1], "ads")]}, step.through, reads_snapshots=False)
        data.write_vocabularies(self.folder / "vocabularies")
        if step.config.tiny is not None:
            model = EcdctrServed(model, step._tables(self.state))
        assert step.config.export is not None
        version = serving.export(model, data, self.served, step.config.export.tables)
        tidy(self.served, step.config.export.keep)
        return version


def student_of(
    config: RolloutConfig, schema: Schema, stages: Mapping[str, Mapping[str, Stage]]
) -> tuple[Any, list[tuple[Method, Any]]]:
    """The untrained ads model of a schema, and the models that each method wraps in turn; nothing
    is built yet."""
    from tfctr.frameworks.ecdctr.student import EcdctrStudent

    import_models(config.frameworks)
    model = config.model.create(schema)
    if config.tiny is not None:
        data = config.days.data
        assert data.user is not None  # `DaysConfig` requires both
        assert data.item is not None
        dim = snapshot_dim(config, schema)
        model = EcdctrStudent(model, data.user, data.item, config.tiny.snapshots, dim)
    return wrapped(model, config.frameworks, schema, stages)


def snapshot_dim(config: RolloutConfig, schema: Schema) -> int:
    """The width of the vectors in snapshots."""
    assert config.tiny is not None
    return int(config.tiny.model.create(schema).field_dim)


def _step_path(folder: Path) -> str:
    return str(folder / "step.json")
