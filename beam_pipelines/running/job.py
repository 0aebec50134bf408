"""Runs Beam jobs that write a directory, whole or not at all."""

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
from tfctr.quiet import quieten

Options = TypeVar("Options", bound="JobOptions")
OLD = ".old"  # suffix of the directory that is replaced, between two moves


class JobOptions(PipelineOptions):
    """The options of a job's command that are not Beam's; each job has a subclass.

    Beam reads the options of all direct subclasses of `PipelineOptions` at once and refuses equal
    names. Jobs have names in common, so their options are subclasses of this class.
    """

    @property
    def beam_args(self) -> list[str]:
        """The arguments that are not the job's own."""
        parser: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        self._add_argparse_args(parser)
        return parser.parse_known_args(self._flags)[1]


def add_output(parser: argparse.ArgumentParser, about: str | None) -> None:
    """Adds what all jobs have: the text `about` for `--help`, and the option `--output`."""
    parser.description = about
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("--output", required=True, help="the directory to write")


@contextmanager
def directory(output: str) -> Iterator[str]:
    """A folder to write to, which becomes the directory `output` if there is no error.

    Args:
        output: path or URI; a directory with a manifest, or an empty one, is replaced.

    Raises:
        DataError: `output` is something else.
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


def delete_folders(folder: str, *names: str) -> None:
    """Deletes the folders of these names in `folder`; some may not be there."""
    system, made = files.filesystem(folder)
    for name in names:
        if system.get_file_info(f"{made}/{name}").type == fs.FileType.Directory:
            system.delete_dir(f"{made}/{name}")


@contextmanager
def dead_letters_kept(folder: str, output: str) -> Iterator[str]:
    """The place to which the bad rows of a job's `folder` are moved if a `DataError` is raised in
    this context: next to `output`, as the folder is deleted then."""
    system, made = files.filesystem(f"{folder}/dead_letters")
    kept = f"{files.filesystem(output.rstrip('/'))[1]}.dead_letters"
    try:
        yield kept
    except DataError:
        if system.get_file_info(made).type == fs.FileType.Directory:
            system.move(made, kept)
        raise


@dataclass(frozen=True)
class RowCounts:
    """Counts of rows where pieces are read, and where groups of their rows arrive."""

    pieces: int = 0  # pieces read
    sent: int = 0  # rows read from them
    arrived: int = 0  # rows of a group


def check_rows_arrived(what: str, counts: Iterable[RowCounts], pieces: int) -> int:
    """The number of rows, if the rows of all pieces have arrived.

    Raises:
        DataError: some are missing.
    """
    total = Counter[str]()
    for part in counts:
        total.update(pieces=part.pieces, sent=part.sent, arrived=part.arrived)
    check_arrived(f"{what}: its pieces", total["pieces"], pieces)
    check_arrived(f"{what}: its rows", total["arrived"], total["sent"])
    return total["sent"]


def run(job: beam.PTransform, what: str, name: str, folder: str, beam_args: list[str]) -> Any:
    """Runs `pipeline | job` and returns its only element, of JSON types.

    Args:
        job: the pipeline.
        what: one word for what the job does, for Beam.
        name: of the config, for Beam and for errors.
        folder: for a file with the element.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Raises:
        ConfigError, DataError: as on a worker; for options with which elements are lost; for a
            full disk.
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
    """Runs a job as a command, and returns the exit status: 1 if the user made a mistake.

    Args:
        options: the class of the job's options.
        argv: the job's and Beam's arguments. Defaults to the process's.
        write: options -> a line about what was written to `output`.
    """
    quieten()
    given = options(argv)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    try:
        written = write(given)
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.output}: {written}")
    return 0


def summary_line(manifest: dict[str, Any]) -> str:
    """A line about the rows of a directory with this manifest."""
    rows = {split: found["rows"] for split, found in manifest["splits"].items()}
    bad = f", {manifest['counts']['bad']:,} bad rows set aside" if "counts" in manifest else ""
    return f"{rows}{bad}"


def run_main(spec: ModuleSpec | None) -> int:
    """Runs `main` of the module that `python -m` runs, imported by its name.

    A worker in another process can't find classes of `__main__`.
    """
    assert spec is not None
    status: int = importlib.import_module(spec.name).main()
    return status


def _pipeline(options: PipelineOptions, args: list[str]) -> beam.Pipeline:
    """An empty pipeline with checked options; creating it imports the runner and its options."""
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
    # A job server has further options; the runner asks it for them.
    if not isinstance(pipeline.runner, PortableRunner):
        options.get_all_options(add_extra_args_fn=lambda parser: _refuse_unknown(parser, args))
    return pipeline


def _refuse_unknown(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """Raises `ConfigError` for options that `parser`, which has all of Beam's, does not know."""
    if unknown := parser.parse_known_args(args)[1]:
        raise ConfigError(
            f"found {' '.join(unknown)}, an option of neither the job nor Beam; --help shows the "
            "job's, and Beam's documentation those of its runners"
        )


def _refuse_to_replace(system: fs.FileSystem, target: str) -> None:
    """Only the output of such a job, or an empty folder, may be replaced."""
    kind = system.get_file_info(target).type
    if kind == fs.FileType.NotFound:
        return
    if kind == fs.FileType.Directory:
        names = [info.base_name for info in system.get_file_info(fs.FileSelector(target))]
        if not names or "manifest.json" in names:
            return
    raise DataError(f"{target}: exists and is not a dataset; choose another output")


def _clear_leftovers(system: fs.FileSystem, target: str) -> None:
    """Deletes what a killed run of this output left, and the bad rows of a refused one."""
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
    """Moves the directory into place; an old one is deleted only after that."""
    replaced = system.get_file_info(target).type == fs.FileType.Directory
    if replaced:
        system.move(target, made + OLD)
    system.create_dir(str(PurePosixPath(target).parent), recursive=True)
    system.move(made, target)
    if replaced:
        system.delete_dir(made + OLD)
