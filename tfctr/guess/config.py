"""The config of a run on a log, as a sample of its rows suggests it."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.compute as pc

from tfctr.config import ConfigError, DataConfig, RunConfig, Time, validate
from tfctr.data import files
from tfctr.data.clean import EXAMPLES, Cleaner, tally
from tfctr.data.manifest import DataError
from tfctr.data.times import read_times
from tfctr.guess import features, names, roles, source, written
from tfctr.guess.columns import Column
from tfctr.guess.roles import Role
from tfctr.guess.sample import sampled_pieces
from tfctr.guess.source import Table
from tfctr.guess.written import Block, Line

SIDES = ("user", "item")
MIN_COUNT = 2
SHARES = {"valid": 0.1, "test": 0.1}
FEW_ROWS = 50  # a split of fewer may be empty
FEW_COLUMNS = 3  # besides label and time: without names, the first two are the user and the item
SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid"}
SPLIT_NAMES |= {"validation": "valid", "dev": "valid", "test": "test", "eval": "test"}


Joined: TypeAlias = tuple[Table, str, str]  # its key, and a question


@dataclass(frozen=True)
class Guessed:
    """A config to write.

    Attributes:
        text: the YAML.
        rows: of the sample.
        questions: number of comments that ask something.
        left_out: number of columns that are no features, with the reason in a comment.
        decisions: what `prepare` stops at until the user decides, a line each.
    """

    text: str
    rows: int
    questions: int
    left_out: int
    decisions: list[str]


def guess(log: Sequence[str], output: Path, tables: Mapping[str, str | None]) -> Guessed:
    """The config of a run on a log.

    Args:
        log: paths, folders or globs, relative to the working folder.
        output: the file that the config is for; its paths are relative to its folder.
        tables: the files of `users` and of `items`, if there are any.

    Raises:
        ConfigError: no such file, no columns, no rows, or no column that could be the label.
    """
    patterns = [_from(path, output) for path in log]
    directory = str(output.parent)
    events = source.find(patterns, directory)
    given = {
        name: source.find([_from(path, output)], directory)
        for name, path in tables.items()
        if path is not None
    }
    keys = source.read([events, *given.values()])
    log_name = " ".join(log)
    found = _roles(events, given, log_name)
    joined = _joined(events, given, found)
    lines = _features(events, joined, found)
    if not lines.kept:
        raise ConfigError(
            f"{log_name}: no column that could be a feature: {_shown(events.columns)}"
        )
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", output.stem).strip("-_.") or "log"
    split = _split(events, found, directory)
    data = [
        Line("name", name),
        _source(events, keys, joined, isinstance(split, Block)),
        *_of_roles(found, lines),
        split,
        *_of_features(found, lines),
    ]
    decisions = _checked(data, output)
    data += decisions
    run: list[Line | Block] = [
        Line("name", f"{name}-dcnv2"),
        Block("data", data),
        Line("model", {"backbone": "dcn_v2"}, "docs/training.md lists others"),
    ]
    validate(output, RunConfig, written.content(run) | {"data": _with(data, directory)})
    head = [
        f"What a sample of {events.rows:,} rows of {written.one_line(log_name)} suggests. Comments "
        "with a question mark ask",
        "what it cannot tell. docs/data.md describes the keys. To go on: tfctr run FILE",
    ]
    text = written.text(run, head)
    questions = sum("?" in line.rpartition("  # ")[2] for line in text.splitlines()[len(head) :])
    to_decide = [line.comment for line in decisions]
    if events.rows < FEW_ROWS:
        to_decide.append(f"the log has {events.rows} rows, too few for training and evaluation")
    return Guessed(text, events.rows, questions, len(lines.left_out), to_decide)


def guess_features(log: str, found: Mapping[str, Role]) -> tuple[dict[str, Any], list[str]]:
    """The features of a log whose columns with a role are known.

    Args:
        log: path of a file.
        found: the columns of the label and, if there are, of the time, the user, the item and the
            split. A time without keys is read in the likeliest way.

    Returns:
        Keys of a data config, `features` among them; and the columns that are left out, with their
        reasons.

    Raises:
        ConfigError: no such column, no rows, or no column that could be a feature.
    """
    events = source.find([log], "")
    source.read([events])
    for key, role in found.items():
        if role.column not in events.columns:
            there = ", ".join(events.columns)
            raise ConfigError(f"{key}: found {role.column!r}; columns of the events: {there}")
    label, time = events.columns[found["label"].column], found.get("time")
    if label.numbers is None:
        raise ConfigError(f"label: reads column {label.name!r}, which holds no numbers")
    if time is not None and not time.keys:
        for reading in events.columns[time.column].readings[:1]:
            keys = reading.model_dump(exclude_defaults=True, exclude={"column"})
            found = {**found, "time": replace(time, keys=keys)}
    lines = _features(events, {}, found)
    if not lines.kept:
        raise ConfigError(f"no column that could be a feature: {_shown(events.columns)}")
    left_out = [
        f"{line.value.get('column', line.value.get('name'))} ({line.comment})"
        for line in lines.left_out
    ]
    return written.content([*_of_roles(found, lines), *_of_features(found, lines)]), left_out


def _features(
    events: Table, joined: Mapping[str, Joined], found: Mapping[str, Role]
) -> features.Features:
    """The features of the events, then those of the tables."""
    columns, label = events.columns, found["label"]
    lines = features.Features()
    sides = roles.Sides(*(columns[found[s].column] if s in found else None for s in SIDES))
    others = [name for t, _, _ in joined.values() for name in (*t.columns, *t.objects)]
    others += events.objects
    taken = [found[role].column for role in ("label", "time", "split") if role in found]
    clicks = _clicks(columns[label.column], label)
    features.of_events(lines, columns, sides, clicks, others, taken)
    hidden = [*columns]  # the events' columns hide those of the tables, and the users' the items'
    for name, (table, _, _) in joined.items():
        features.of_table(lines, table.columns, name.removesuffix("s"), hidden)
        hidden += table.columns
    for name in events.objects:
        lines.left_out.append(Line(None, {"column": name}, "an object, which is not read", True))
    return lines


def _clicks(column: Column, label: Role) -> np.ndarray:
    """bool `[N]`"""
    numbers = column.numbers
    assert numbers is not None
    above = label.keys.get("positive_above", 0)
    return np.nan_to_num(numbers, nan=above) > above


def _of_roles(found: Mapping[str, Role], lines: features.Features) -> Iterator[Line]:
    """The lines of the label, the time, the user and the item."""
    for name in ("label", "time"):
        if name in found:
            role = found[name]
            yield Line(name, {"column": role.column, **role.keys}, role.question)
    for side in SIDES:
        if side in found:
            yield Line(side, lines.names[found[side].column], found[side].question)
        else:
            question = f"which column identifies the {side}? give it side: {side}"
            yield Line(side, "NAME", question, is_off=True)


def _of_features(found: Mapping[str, Role], lines: features.Features) -> Iterator[Line | Block]:
    if any(line.value["kind"] != "numeric" and line.value["kind"] != "text" for line in lines.kept):
        comment = "values of fewer training rows are out of vocabulary; more for a long log?"
        yield Line("defaults", {"min_count": MIN_COUNT}, comment)
    history = []
    if {"user", "item", "time"} <= found.keys():
        history = [features.history(lines, found["item"].column)]
    yield Block("features", [*lines.kept, *history, *lines.left_out])


# --- files ----------------------------------------------------------------------------------------


def _from(path: str, output: Path) -> str:
    """A path of the command line as the config in `output` writes it.

    Raises:
        ConfigError: it is a folder, and the config would be one of its files.
    """
    if "://" in path or path.startswith("~") or not files.matching(path):
        return path  # maybe in TFCTR_DATA_HOME
    if output.parent.resolve().is_relative_to(Path(path).resolve()):
        raise ConfigError(
            f"{path}: all files of this folder are read, and {output} would be one of them; name "
            'the log\'s files, as "*.csv", or another --output'
        )
    return path if Path(path).is_absolute() else os.path.relpath(path, output.parent)


def default_output(log: Sequence[str]) -> Path:
    """`clicks.yaml` of `day/clicks.csv.gz`, `log.yaml` of `log/*.parquet`."""
    path = log[0].rpartition("!")[2].rpartition("://")[2].rstrip("/")
    parts = [part for part in path.split("/") if part and not files.WILDCARD.search(part)]
    last = parts[-1] if parts and parts[-1].strip(".") else "log"
    is_file = path.endswith(last) and not Path(path).is_dir()
    stem = last.split(".")[0] if is_file else last
    return Path(f"{stem or 'log'}.yaml")


def _source(
    events: Table,
    keys: Mapping[str, Any],
    joined: Mapping[str, Joined],
    is_by_file: bool,
) -> Line | Block:
    asked = {
        "encoding": "not UTF-8; is it latin-1?",
        "missing": "do these texts stand for no value?",
        "decimal": "are numbers written 1,5?",
    }
    paths: Any = events.patterns[0] if len(events.patterns) == 1 else list(events.patterns)
    found = [Line("format", keys["format"])]
    if not is_by_file:
        found.append(Line("events", paths))
    found += [Line(key, keys[key], asked.get(key, "")) for key in keys if key != "format"]
    if not events.is_named:
        question = "the files have no header line; are these names right?"
        found.append(Line("columns", list(events.columns), question))
    for name, (table, key, question) in joined.items():
        value: dict[str, Any] = {"path": table.patterns[0], "key": key}
        if not table.is_named:
            value["columns"] = list(table.columns)
        found.append(Line(name, value, question))
    if joined or any(line.comment for line in found):
        return Block("source", found)
    return Line("source", {str(line.key): line.value for line in found})


# --- roles ----------------------------------------------------------------------------------------


def _roles(events: Table, given: Mapping[str, Table], log: str) -> dict[str, Role]:
    """The columns with a role: label, time, split, user and item. Columns that the files do not
    name get the names of their roles."""
    columns = events.columns
    label = roles.label(columns, log)
    of_rows = {"time": roles.time(columns), "split": _split_column(columns)}
    found = {"label": label} | {name: role for name, role in of_rows.items() if role is not None}
    found |= _who(events, given, [role.column for role in found.values()])
    if events.is_named:
        return found
    as_named = {"label": "rating" if label.keys else "click", "time": "timestamp"}
    renamed = {role.column: as_named.get(what, what) for what, role in found.items()}
    events.rename(renamed)
    return {what: replace(role, column=renamed[role.column]) for what, role in found.items()}


def _who(events: Table, given: Mapping[str, Table], taken: Sequence[str]) -> dict[str, Role]:
    """The user and the item, if a name or a table says which columns they are."""
    columns = events.columns
    if not events.is_named:
        rest = [name for name in columns if name not in taken]
        ids = [name for name in rest if columns[name].distinct > 2 and not columns[name].is_list]
        if len(rest) > FEW_COLUMNS or len(ids) < 2:
            return {}
        question = "the files do not name it; is it this column?"
        return {side: Role(name, {}, question) for side, name in zip(SIDES, ids, strict=False)}
    found: dict[str, Role] = {}
    for side, known in zip(SIDES, (names.USERS, names.ITEMS), strict=True):
        role, table = roles.who(columns, known, side, taken), given.get(f"{side}s")
        if table is not None and table.is_named:
            shared = [name for name in columns if name in table.columns]
            keys = [name for name in shared if table.columns[name].is_key]
            if keys and (role is None or role.column not in keys):
                role = Role(keys[0])
        if role is not None:
            found[side] = role
    return found


def _joined(events: Table, given: Mapping[str, Table], found: dict[str, Role]) -> dict[str, Joined]:
    """Each table with its key and a question. Columns that files do not name get names.

    Raises:
        ConfigError: no column of a table is its key.
    """
    joined: dict[str, Joined] = {}
    for name, table in given.items():
        side = name.removesuffix("s")
        role = found.get(side)
        if role is not None and table.is_named and role.column in table.columns:
            if not (key := table.columns[role.column]).is_key:
                raise ConfigError(
                    f"{table.name}: its key {key.name!r} has {key.distinct:,} values in "
                    f"{len(key.values):,} rows; each row needs one of its own"
                )
            joined[name] = table, role.column, ""
            continue
        found_key = None if role is None else _key(table, events.columns[role.column])
        if found_key is None or role is None:
            raise ConfigError(
                f"{table.name}: no column is the key of the {name}: each of its rows needs a value "
                f"of its own that the log has too, under one name; columns: {_shown(table.columns)}"
            )
        if table.is_named and events.is_named:
            raise ConfigError(
                f"{table.name}: its column {found_key!r} has the values of {role.column!r} in the "
                "log; a key has one name in both: rename one"
            )
        if table.is_named:
            events.rename({role.column: found_key})
            found[side] = replace(role, column=found_key)
            joined[name] = table, found_key, "is it the key?"
            continue
        others = [column for column in table.columns if column != found_key]
        new = {column: f"{name}_{i + 2}" for i, column in enumerate(others)}
        table.rename(new | {found_key: role.column})
        joined[name] = table, role.column, "are the key and the names right?"
    return joined


def _key(table: Table, ids: Column) -> str | None:
    """The column with the values of the users (items) of the log, each once."""
    shares = {}
    for name, column in table.columns.items():
        if column.tokens is not None and column.is_key:
            known = pc.is_in(pc.unique(ids.tokens.drop_null()), value_set=column.tokens)
            shares[name] = pc.mean(known).as_py() or 0.0
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] >= 0.5 else None


# --- splits ---------------------------------------------------------------------------------------


def _split_column(columns: Mapping[str, Column]) -> Role | None:
    """A column whose values are names of splits."""
    for column in columns.values():
        if column.tokens is None or column.is_list or not 2 <= column.distinct <= 3:
            continue
        found = {
            SPLIT_NAMES.get(str(text).lower()): text
            for text in pc.unique(column.tokens.drop_null()).to_pylist()
        }
        if None not in found and len(found) == column.distinct and {"train", "valid"} <= {*found}:
            return Role(column.name, {str(k): v for k, v in found.items() if k != v})
    return None


def _split(events: Table, found: Mapping[str, Role], directory: str) -> Line | Block:
    if by_file := _files_of_splits(events.paths, directory):
        return Block("split", [Line("by", "file"), *(Line(*files) for files in by_file.items())])
    if (column := found.get("split")) is not None:
        return Line("split", {"by": "column", "column": column.column, **column.keys})
    if events.rows < FEW_ROWS:
        question = f"{events.rows} rows are too few for training and evaluation; are there more?"
        return Line("split", {"by": "random", **SHARES}, question)
    if (role := found.get("time")) is None:
        question = "no column is a time; is there none? A split by time tells what comes later"
        return Line("split", {"by": "random", **SHARES}, question)
    time = Time.model_validate({"column": role.column, **role.keys})
    moments, _ = read_times(events.columns[role.column].values, time)
    if not roles.splits_by(moments.to_numpy()):
        question = "too few times in the sample to split by them; by: global_time?"
        return Line("split", {"by": "random", **SHARES}, question)
    return Line("split", {"by": "global_time", **SHARES})


def _files_of_splits(paths: Sequence[str], directory: str) -> dict[str, Any]:
    """The files of each split, if their names say so."""
    found: dict[str, list[str]] = {}
    for path in paths:
        said = [SPLIT_NAMES[w] for w in names.words(Path(path).name) if w in SPLIT_NAMES]
        if len(said) != 1:
            return {}
        is_below = "://" not in path and not Path(path).is_absolute()
        shown = os.path.relpath(path, directory) if is_below else path
        found.setdefault(said[0], []).append(shown)
    if not {"train", "valid"} <= found.keys():
        return {}
    ordered = {split: found[split] for split in EXAMPLES if split in found}
    return {split: some[0] if len(some) == 1 else some for split, some in ordered.items()}


# --- checks ---------------------------------------------------------------------------------------


def _with(data: Sequence[Line | Block], directory: str) -> dict[str, Any]:
    return {**written.content(data), "directory": directory}


def _checked(data: Sequence[Line | Block], output: Path) -> list[Line]:
    """Reads the sample as `prepare` will, and returns what it would stop at."""
    config = validate(output, DataConfig, _with(data, str(output.parent)))
    cleaner, share = Cleaner(config), config.max_bad_share
    reasons: Counter[str] = Counter()
    read = bad = 0
    try:
        cleaner.check_types()
        for piece in sampled_pieces(cleaner.source.events):
            _, rows, counts = cleaner.clean(piece)
            read, bad = read + counts["read"], bad + counts["bad"]
            reasons.update(why for _, why, _ in rows.bad)
        tables = cleaner.joined.tables
    except (ConfigError, DataError) as error:
        return [Line("max_bad_share", share, f"prepare would stop: {error}; can this be changed?")]
    found = {"sampled rows": (read, bad, reasons)}
    for name, table in tables.items():
        found[f"rows of the {name}"] = table.rows, len(table.bad), Counter(tally(table.bad))
    return [
        Line(
            "max_bad_share",
            share,
            f"{bad:,} of {read:,} {what} are bad, so prepare would stop; most often: "
            f"{', '.join(f'{why} ({count:,})' for why, count in reasons.most_common(3))}; may they "
            "be left out? then raise max_bad_share",
        )
        for what, (read, bad, reasons) in found.items()
        if bad > share * read
    ][:1]


def _shown(columns: Mapping[str, Column]) -> str:
    return roles.listed(list(columns))
