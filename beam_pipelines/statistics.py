"""Makes tables of items from what users said of them in the training period.

    python -m beam_pipelines.statistics --config configs/movielens-1m/statistics/tables.yaml \\
        --data work/movielens-1m-long --output work/movielens-1m-tables

It takes Beam's options too. The output is `tables.npz`, arrays by an item's id for three
populations of users, one half, the other half, and all; `docs/statistics.md` describes them.

The events are first grouped by user, and stored (`transforms.graded_events`). Then each step of
expectation maximisation reads every group for sums of the items in it, adds the sums of an item,
and writes the items' new parameters for the next step (`transforms.fit_factors`). A worker holds
the events of one group, and the parameters of all items.

The groups, `events/`, and the parameters, `state.npz`, stay beside the tables, so that a later log
can be added to them (`--add`): only its events are read and sorted, and few steps are needed.
"""

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

import tfctr
from beam_pipelines.running import job
from beam_pipelines.transforms.fit import read_vocabularies
from beam_pipelines.transforms.fit_factors import (
    Fit,
    Similar,
    read_noise,
    read_state,
    write_state,
)
from beam_pipelines.transforms.graded_events import ReadEvents
from beam_pipelines.transforms.side_outputs import (
    open_manifest,
    open_manifest_of,
    open_manifest_with_log,
)
from beam_pipelines.transforms.split import KNOWN, SPLITS
from tfctr.config import ConfigError, DataConfig, data_digest, digest, load, load_data
from tfctr.data import files
from tfctr.data.manifest import FORMAT, DataError, read_manifest, write_manifest
from tfctr.data.sources import open_source
from tfctr.frameworks.statistics import factor_model
from tfctr.frameworks.statistics.attribute_table import with_new_ids
from tfctr.frameworks.statistics.config import (
    ALL_USERS,
    APART,
    POPULATIONS,
    TablesConfig,
    attribute_sizes,
)
from tfctr.schema import FIRST_TOKEN_ID, Schema

# In a group of users, about. A group sends the sums of its items, so fewer groups are less to send.
GROUP_EVENTS = 1 << 20
GROUPS = 8  # at least, so that as many workers share few events
ADDED_STEPS = 3  # of expectation maximisation, from the parameters of before
POPULARITY_UNIT = 1e5  # popularity is log(1 + events among so many)


def write_statistics(
    config: TablesConfig,
    data: str,
    output: str,
    key: str = "",
    beam_args: list[str] | None = None,
    log: DataConfig | None = None,
    add_to: str | None = None,
) -> dict[str, Any]:
    """Writes the tables of items to a directory at `output`, whole or not at all.

    Args:
        config: of the tables.
        data: path or URI of the dataset directory.
        output: path or URI of the directory; an existing one is replaced.
        key: identifies the inputs; it is copied to the manifest.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.
        log: the config of a later log with the same features. All of its events are read, whatever
            its split, in place of those of the dataset's training period.
        add_to: path or URI of tables of the same dataset, which may be `output`. The events of
            `log` are added to theirs.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is not a dataset of this config; its log has changed since, if it is read;
            a grade is not a number; no event has a grade, or all grades are equal; the tables at
            `add_to` are others, or know the events of `log` already.
    """
    data = data.rstrip("/")
    if log is None:
        manifest = open_manifest_with_log(config.data, data)
    else:
        manifest = open_manifest_of(config.data, data)
        config = config.model_copy(update={"data": log})
    schema = Schema.model_validate(manifest["schema"])
    fingerprint = open_source(config.data).fingerprint()
    about = {
        "made_with": digest(config, without=["data", "steps"]),
        # Ids stand for the same tokens in all datasets of a log by days.
        "data": manifest.get("grows_from") or data_digest(manifest),
        "logs": [digest([digest(config.data.source), digest(config.data.time), fingerprint])],
    }
    earlier: dict[int, str] = {}
    if add_to is not None:
        add_to = add_to.rstrip("/")
        before = _tables_to_add_to(add_to, about)
        about["logs"] = [*before["logs"], *about["logs"]]
        earlier = {number: f"{add_to}/events/{number:05d}.npz" for number in before["groups"]}
    grades = grade_values(config, schema, data)
    try:
        sizes = attribute_sizes(config, schema)
    except ValueError as error:
        raise DataError(f"{config.name}: {error}") from None
    with job.directory(output) as folder:
        args, name = beam_args or [], config.name
        splits = range(len(SPLITS)) if log else KNOWN
        events = ReadEvents(config, data, folder, splits, earlier)
        read = job.run(events, "statistics", name, folder, args)
        counts = np.zeros((POPULATIONS, len(grades)))
        halves = np.array(read["grades"])
        counts[:2, : halves.shape[1]] = halves
        counts[ALL_USERS] = counts.sum(0)
        # A half without events has no rows to train either.
        counts[counts.sum(1) == 0] = counts[ALL_USERS]
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        means = shares @ grades
        variances = (shares * (grades - means[:, None]) ** 2).sum(1)
        if not variances[ALL_USERS]:
            raise DataError(
                f"{name}: {config.grades} has {np.count_nonzero(counts[ALL_USERS])} grades in "
                f"{read['events']:,} events of the training period; statistics need two"
            )
        variances = np.where(variances > 0, variances, variances[ALL_USERS])
        number = schema[config.items].num_ids
        first = [
            factor_model.initial(number, config.factors, mean, variance)
            for mean, variance in zip(means, variances, strict=True)
        ]
        if add_to is not None:
            models = read_state(f"{add_to}/state.npz")
            first = [_gone_on(model, new) for model, new in zip(models, first, strict=True)]
        steps = config.steps if add_to is None else ADDED_STEPS
        states = [f"{folder}/steps/{step:03d}.npz" for step in range(steps)]
        states.append(f"{folder}/state.npz")
        write_state(states[0], first)
        groups = grouped(read["groups"])
        similar = None
        if config.neighbours:
            similar = Similar(states[-1], grades, number, config.neighbours, folder)
        fit = Fit(groups, read["events"], grades, states, similar)
        written = job.run(fit, "statistics", name, folder, args)["paths"]
        rmse = [float(variances[ALL_USERS] ** 0.5)]
        rmse += [read_noise(state)[ALL_USERS] ** 0.5 for state in states[1:]]
        tables = _tables(states[-1], grades, shares[ALL_USERS])
        if config.neighbours:
            tables |= _neighbour_tables(written, number, config.neighbours)
        if config.attributes:
            found = _attribute_table(read["attributes"], sizes, number)
            if add_to is not None:
                had = files.read_arrays(f"{add_to}/tables.npz")
                known = with_new_ids(had["attributes"], had["attribute_sizes"], number, sizes)
                found = np.where(known.any(1, keepdims=True), known, found)
            tables |= {"attributes": found, "attribute_sizes": np.array(sizes)}
        files.write_arrays(f"{folder}/tables.npz", tables)
        # What only the job reads.
        job.delete_folders(folder, "staged", "dead_letters", "steps", "blocks", "state-sums")
        result = {
            "format": FORMAT,
            "config_digest": digest(config),
            **about,
            "key": key,
            "versions": {"tfctr": tfctr.__version__, "beam": beam.__version__},
            "events": read["events"],
            "groups": read["numbers"],
            "attribute_sizes": sizes,
            "items": int((tables["popularity"][ALL_USERS] > 0).sum()),
            "rmse": rmse,
        }
        write_manifest(result, f"{folder}/manifest.json")
        return result


def _tables_to_add_to(folder: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of tables that a log's events can be added to.

    Raises:
        DataError: there are none, they are others, or they know these events.
    """
    before = read_manifest(f"{folder}/manifest.json")
    if before is None or before.get("format") != FORMAT or "attribute_sizes" not in before:
        raise DataError(
            f"{folder}: no tables of this version to add to; make them of the whole log first"
        )
    if any(before[name] != about[name] for name in ("made_with", "data")):
        raise DataError(
            f"{folder}: made with another config or for another dataset, so ids stand for other "
            "tokens; make them of the whole log first"
        )
    if {*before["logs"]} & {*about["logs"]}:
        raise DataError(f"{folder}: has the events of this log already; give a log of later ones")
    return before


def _gone_on(model: factor_model.Factors, new: factor_model.Factors) -> factor_model.Factors:
    """The parameters of before as the first ones, with initial rows of items that are new."""
    weights = np.concatenate([model.weights, new.weights[len(model.weights) :]])
    return factor_model.Factors(weights, model.noise, np.r_[new.center[0], model.center[1:]])


def grade_values(config: TablesConfig, schema: Schema, data: str) -> np.ndarray:
    """The value of each grade's id, float64 `[G]`; 0 for the special ids.

    Raises:
        DataError: a token is not a number.
    """
    feature = schema[config.grades]
    vocabulary = read_vocabularies([feature], data)[feature.vocabulary]
    try:
        values = [float(token) for token in vocabulary.tokens.to_pylist()]
        if not np.isfinite(values).all():
            raise ValueError(f"{values[np.argmin(np.isfinite(values))]} is not finite")
    except ValueError as error:
        raise DataError(
            f"{config.name}: grades: {config.grades} has a token that is no number: {error}"
        ) from None
    return np.r_[np.zeros(FIRST_TOKEN_ID), values]


def grouped(groups: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Paths of groups of users, together at most about `GROUP_EVENTS` events each."""
    found: list[list[str]] = []
    most = min(GROUP_EVENTS, sum(events for _, events in groups) / GROUPS)
    held = most
    for path, events in groups:
        if held + events > most:
            found.append([])
            held = 0
        found[-1].append(path)
        held += events
    return found


def _tables(state: str, grades: np.ndarray, share: np.ndarray) -> dict[str, Any]:
    models = read_state(state)
    found = files.read_arrays(state)
    counts = np.stack([found[f"counts_{p}"] for p in range(POPULATIONS)])
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    weights = np.stack([model.weights for model in models])
    mean = share @ grades
    deviation = (share @ (grades - mean) ** 2) ** 0.5
    standard = (grades - mean) / deviation
    return {
        "means": weights[:, :, 0].astype(np.float32),
        "loadings": weights[:, :, 1:].astype(np.float32),
        "popularity": np.log1p(POPULARITY_UNIT * counts / total).astype(np.float32),
        "noise": np.array([model.noise for model in models], np.float32),
        "grades": grades.astype(np.float32),
        "is_grade": (np.arange(len(grades)) >= FIRST_TOKEN_ID).astype(np.float32),
        "shares": np.array([share @ (standard > APART), share @ (standard < -APART)], np.float32),
        "grade_scale": np.array([mean, deviation], np.float32),
    }


def _neighbour_tables(paths: list[str], num_items: int, number: int) -> dict[str, np.ndarray]:
    """`neighbours` int32 and `similarities` float32, `[3, items, number]`."""
    shape = (POPULATIONS, num_items, number)
    tables = {"neighbours": np.zeros(shape, np.int32), "similarities": np.zeros(shape, np.float32)}
    for path in paths:
        found = files.read_arrays(path)
        for population in range(POPULATIONS):
            if f"items_{population}" in found:
                items = found[f"items_{population}"]
                for name, table in tables.items():
                    table[population, items] = found[f"{name}_{population}"]
    return tables


def _attribute_table(paths: list[str], sizes: list[int], num_items: int) -> np.ndarray:
    """Which attributes an item has: 1 or 0, `[items, values]`."""
    first = np.cumsum([0, *sizes[:-1]])
    table = np.zeros((num_items, sum(sizes)), np.float32)
    for path in paths:
        items, attributes, ids = np.load(io.BytesIO(files.read(path))).T
        table[items, first[attributes] + ids] = 1
    return table


def check_tables(tables: str, config: TablesConfig, manifest: Mapping[str, Any], data: str) -> None:
    """Checks that tables are those of a config, for the dataset at `data` of this manifest.

    Raises:
        DataError: they are others, or not there.
    """
    expected = {"config_digest": digest(config), "data": data_digest(manifest)}
    if not expected.items() <= open_manifest(tables).items():
        raise DataError(
            f"{tables}: no tables of {config.name} for {data}; make them first, by "
            "beam_pipelines.statistics"
        )


class StatisticsOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a tables config")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--log", help="YAML file of a later log, to be read in its place")
        parser.add_argument(
            "--add", action="store_true", help="add the log's events to the tables at the output"
        )


def _write(options: StatisticsOptions) -> str:
    config = load(options.config, TablesConfig)
    paths = (options.data, options.output)
    log = load_data(options.log) if options.log else None
    if options.add and log is None:
        raise ConfigError("--add: adds the events of a log; give --log too")
    add_to = options.output if options.add else None
    about = write_statistics(config, *paths, beam_args=options.beam_args, log=log, add_to=add_to)
    return f"{options.output}: tables of {about['items']:,} items, of {about['events']:,} events"


def main(argv: list[str] | None = None) -> int:
    return job.command(StatisticsOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
