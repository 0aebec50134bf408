"""Sets the number of partitions on Dask so that all workers are busy at every step of a job.

Beam's runner (2.77) puts the first 128 elements, which are all pieces of most logs, into one
partition, and so on one worker. Each join then has as many partitions as its inputs together,
nearly all of them empty, and a shuffle has about the square of this number of tasks.
"""

from typing import Any

from apache_beam.runners.dask import overrides, transform_evaluator
from distributed import default_client

PER_THREAD = 2  # so that a worker that finishes early takes over from others


def install() -> None:
    """Sets this number for pipelines on Dask, from now on. `--dask_npartitions` and
    `--dask_partition_size` still apply."""

    def number(options: dict[str, Any]) -> int:
        threads = sum(default_client().nthreads().values())
        return options.get("npartitions") or max(1, PER_THREAD * threads)

    class Create(transform_evaluator.Create):
        def apply(self, input_bag: Any, side_inputs: Any = None) -> Any:
            if "partition_size" not in self.bag_kwargs:
                self.bag_kwargs = {"npartitions": number(self.bag_kwargs)}
            return super().apply(input_bag, side_inputs)

    class GroupByKey(transform_evaluator.GroupByKey):
        def apply(self, input_bag: Any, side_inputs: Any = None) -> Any:
            partitions = min(input_bag.npartitions, number(self.bag_kwargs))
            return super().apply(input_bag.repartition(npartitions=partitions), side_inputs)

    transform_evaluator.TRANSLATIONS[overrides._Create] = Create
    transform_evaluator.TRANSLATIONS[overrides._GroupByKeyOnly] = GroupByKey
