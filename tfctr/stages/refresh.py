"""The stage that exports a trained model again, with later data."""

from collections.abc import Mapping
from typing import Any

from tfctr.data.manifest import read_manifest
from tfctr.stages.calibrate import Calibrate
from tfctr.stages.export import Export
from tfctr.stages.stage import Stage
from tfctr.stages.student import parts_of
from tfctr.stages.train import Train


class Refresh(Export):
    """A further version of a trained student: the same weights, and later data of its methods.

    Args:
        trained: the training stage of the run. It is not built: what its data was made of may have
            changed since.
        latest: the stages of the later data, by method and role (`Method.latest`).
        calibrated: the calibration of the trained model, which is not made again either.

    Raises:
        DataError: from `check`, there is no student with these weights.
    """

    name = "refresh"

    def __init__(
        self,
        trained: Train,
        latest: Mapping[str, Mapping[str, Stage]],
        calibrated: Calibrate | None = None,
    ) -> None:
        super().__init__(trained, calibrated)
        self.latest = latest
        self.reads = tuple(stage for made in latest.values() for stage in made.values())

    @property
    def made_from(self) -> Any:
        found = read_manifest(self.trained.manifest_path) or {}
        own = [super().made_from, found.get("key"), self.trained.key_but_for_data()]
        if self.calibrated is not None:
            own.append((read_manifest(self.calibrated.manifest_path) or {}).get("key"))
        return own

    def check(self) -> None:
        super().check()
        self.trained.refuse_untrained(but_for_data=True)
        if self.calibrated is not None:
            self.calibrated.refuse_unfitted()

    def student(self) -> Any:
        student = self.trained.load(but_for_data=True)
        for method, part in parts_of(self.trained.config, student):
            if method.name in self.latest:
                method.set_data(part, self.latest[method.name])
        return student
