"""Beam jobs that leave a directory, whole or not at all."""

import argparse
import importlib
import logging
import re
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import PurePosixPath
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    TypeOptions,
)
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from pyarrow import fs

from beam_pipelines.running import worker
from beam_pipelines.running.flush_timer import turn_off_flush_timer
from tfctr.config import ConfigError
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.manifest import DataError, write_manifest

Options = TypeVar("Options", bound="JobOptions")
OLD = ".old"  # the directory that is being replaced, for the moment between two moves


class JobOptions(PipelineOptions):
    """The options of a job's command that are not Beam's; a subclass says which.

    Beam reads the options of all direct subclasses of `PipelineOptions` at once and refuses two of
    a name. Those of jobs, which have names in common, are subclasses of this one.
    """

    @property
    def beam_args(self) -> list[str]:
        """The arguments that are not the job's own."""
        parser: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        self._add_argparse_args(parser)
        return parser.parse_known_args(self._flags)[1]


def add_output(parser: argparse.ArgumentParser, about: str | None) -> None:
    """What the options of all jobs begin with: `about`, shown by `--help`, and `--output`."""
    parser.description = about
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("--output", required=True, help="the directory to make")


@contextmanager
def directory(output: str) -> Iterator[str]:
    """A folder to write to, which becomes the directory `output` if all goes well.

    Args:
        output: path or URI; a directory with a manifest, or an empty one, is replaced.

    Raises:
        DataError: something else stands there.
    """
    output = output.rstrip("/")
    system, target = files.filesystem(output)
    _refuse_to_replace(system, target)
    _clear_leftovers(system, target)
    folder = f"{output}.tmp-{uuid.uuid4().hex[:8]}"
    made = files.filesystem(folder)[1]
    try:
        yield folder
        _publish(system, made, target)
    finally:
        if system.get_file_info(made).type == fs.FileType.Directory:
            system.delete_dir(made)


@dataclass(frozen=True)
class Passed:
    """What is said of rows where pieces are read, and where groups of them come together."""

    pieces: int = 0  # read
    sent: int = 0  # rows of them
    came: int = 0  # rows of a group


def check_rows_arrived(what: str, passed: Iterable[Passed], pieces: int) -> int:
    """The number of rows, if those of all pieces came.

    Raises:
        DataError: some did not.
    """
    total = Counter[str]()
    for part in passed:
        total.update(pieces=part.pieces, sent=part.sent, came=part.came)
    check_arrived(f"{what}: its pieces", total["pieces"], pieces)
    check_arrived(f"{what}: its rows", total["came"], total["sent"])
    return total["sent"]


def run(job: beam.PTransform, what: str, name: str, folder: str, beam_args: list[str]) -> Any:
    """Runs `pipeline | job` and gives the one element, of JSON types, that comes out.

    Args:
        job: the pipeline.
        what: one word for what the job does, for Beam.
        name: of the config, for Beam and in errors.
        folder: for the element, in a file.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Raises:
        ConfigError, DataError: as on a worker; options with which elements are lost.
    """
    args = list(beam_args)
    if not any(arg.startswith("--runner") for arg in args):
        args.append("--runner=FnApiRunner")  # DirectRunner would first try to download another
    if not any(arg.startswith("--job_name") for arg in args):
        args.append(f"--job_name=tfctr-{what}-{name.lower()}")
    turn_off_flush_timer(args)
    options = PipelineOptions(args)
    options.view_as(SetupOptions).save_main_session = False
    # mypy has checked the transforms; Beam's check takes a quarter of a small job's time.
    options.view_as(TypeOptions).pipeline_type_check = False
    if "dask" in (options.view_as(StandardOptions).runner or "").lower():
        from beam_pipelines.running import dask_bundles, dask_partitions  # Dask is an extra

        dask_bundles.install()
        dask_partitions.install()
    # A worker's error is raised below; Beam would log its traceback as well.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    path = f"{folder}/summary.json"
    begun = _pipeline(options, args)
    try:
        with begun as pipeline:
            _ = (
                pipeline
                | what.capitalize() >> job
                | "WriteSummary" >> beam.Map(write_manifest, path)
            )
    except Exception as error:
        # A worker's error arrives as itself, or within a text that holds its traceback.
        text = f"{type(error).__name__}: {error}"
        if files.NO_SPACE in text:
            raise DataError(f"{name}: {files.NO_SPACE}, for {folder}; make room") from None
        found = re.search(r"\b(ConfigError|DataError): (.+?) \[while running", text)
        if found is None:
            raise
        kind = ConfigError if found[1] == "ConfigError" else DataError
        raise kind(f"{name}: {found[2]}") from None
    summary = files.read_json(path)
    system, inner = files.filesystem(path)
    system.delete_file(inner)
    return summary


def command(options: type[Options], argv: list[str] | None, write: Callable[[Options], str]) -> int:
    """A job as a command: its exit status.

    Args:
        options: the class of the job's.
        argv: the job's and Beam's; the process's own if not given.
        write: options -> a line on what was written to `output`.
    """
    given = options(argv)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    try:
        written = write(given)
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.output}: {written}")
    return 0


def rows_of(manifest: dict[str, Any]) -> str:
    """The line on a directory with this manifest."""
    rows = {split: found["rows"] for split, found in manifest["splits"].items()}
    bad = f", {manifest['counts']['bad']:,} bad rows set aside" if "counts" in manifest else ""
    return f"{rows}{bad}"


def main_of(spec: ModuleSpec | None) -> int:
    """Runs `main` of the module that `python -m` runs, imported by its name.

    A class of `__main__` is not found by a worker that is another process.
    """
    assert spec is not None
    status: int = importlib.import_module(spec.name).main()
    return status


def _pipeline(options: PipelineOptions, args: list[str]) -> beam.Pipeline:
    """An empty one; its runner, once imported, has brought the options that it has."""
    direct, runner = options.view_as(DirectOptions), None
    is_own = (options.view_as(StandardOptions).runner or "").rpartition(".")[2] == "FnApiRunner"
    if is_own and direct.direct_running_mode == "multi_processing":
        command = f"{sys.executable} -m {worker.__name__}"
        runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
        direct.direct_running_mode = None  # the runner would take Beam's worker
    try:
        pipeline = beam.Pipeline(runner, options)
    except (ValueError, ImportError) as error:  # no such runner; a value that Beam refuses
        raise ConfigError(f"Beam's options: {' '.join(str(error).split())}") from None
    # A job server names further options, which the runner asks it for.
    if not isinstance(pipeline.runner, PortableRunner):
        options.get_all_options(add_extra_args_fn=lambda parser: _refuse_unknown(parser, args))
    return pipeline


def _refuse_unknown(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """`parser` knows all options of Beam."""
    if unknown := parser.parse_known_args(args)[1]:
        raise ConfigError(
            f"found {' '.join(unknown)}, an option of neither the job nor Beam; --help shows the "
            "job's, and Beam's documentation those of its runners"
        )


def _refuse_to_replace(system: fs.FileSystem, target: str) -> None:
    """Only what such a job has left, or an empty folder, is replaced."""
    kind = system.get_file_info(target).type
    if kind == fs.FileType.NotFound:
        return
    if kind == fs.FileType.Directory:
        names = [info.base_name for info in system.get_file_info(fs.FileSelector(target))]
        if not names or "manifest.json" in names:
            return
    raise DataError(f"{target}: stands in the way and is no dataset; choose another output")


def _clear_leftovers(system: fs.FileSystem, target: str) -> None:
    """What a killed run of this output left behind, and the bad rows of a refused one."""
    path = PurePosixPath(target)
    siblings = fs.FileSelector(str(path.parent), allow_not_found=True)
    found = sorted(info.base_name for info in system.get_file_info(siblings))
    for name in found:
        left = str(path.parent / name)
        if name == f"{path.name}.dead_letters":
            system.delete_dir(left)
        elif name.startswith(f"{path.name}.tmp-"):
            if name.endswith(OLD) and path.name not in found:
                system.move(left, target)  # killed between the two moves of `_publish`
                found.append(path.name)
            else:
                system.delete_dir(left)


def _publish(system: fs.FileSystem, made: str, target: str) -> None:
    """Puts the directory in its place; one that was there goes only when the new one is whole."""
    replaced = system.get_file_info(target).type == fs.FileType.Directory
    if replaced:
        system.move(target, made + OLD)
    system.create_dir(str(PurePosixPath(target).parent), recursive=True)
    system.move(made, target)
    if replaced:
        system.delete_dir(made + OLD)
