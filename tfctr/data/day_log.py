"""A log by day and domain, with vocabularies that only grow: its manifests and tokens.

    <folder>/log.json                     config, layout, means and buckets of numbers, outliers
    <folder>/2024-01-31/manifest.json     written last: if it exists, the day is complete
    <folder>/2024-01-31/ads/part-00000.tfrecord, .../organic/...
    <folder>/2024-01-31/vocabularies/item_id.txt   the tokens that entered on this day
    <folder>/2024-01-31/events/part-00000.feather  if there are histories: users' latest events

A vocabulary is the concatenation of its days' tokens, in the order in which the days were written.
So ids never change, and the vocabulary of an earlier day is a prefix.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
from pyarrow import fs

from tfctr.data import files
from tfctr.data.manifest import FORMAT, DataError, read_manifest
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import FIRST_TOKEN_ID, TOKEN_KINDS, Schema

LOG = "log.json"
DOMAINS = ("organic", "ads")


@dataclass(frozen=True)
class DayLog:
    """The written days, in the order in which they were written.

    Args:
        folder: path or URI.
        log: the content of `log.json`.
        days: manifests by day.
    """

    folder: str
    log: dict[str, Any]
    days: dict[datetime.date, dict[str, Any]]

    @classmethod
    def open(cls, folder: str | Path) -> "DayLog":
        """Reads the manifests.

        Raises:
            DataError: there is no log of this version; a day between others is missing.
        """
        folder = str(folder).rstrip("/")
        log = read_manifest(f"{folder}/{LOG}")
        if log is None or log.get("format") != FORMAT:
            raise DataError(f"{folder}: no log by days of this version here; run `tfctr rollout`")
        system, path = files.filesystem(folder)
        names = [info.base_name for info in system.get_file_info(fs.FileSelector(path))]
        found = {name: read_manifest(f"{folder}/{name}/manifest.json") for name in names}
        days = sorted((m for m in found.values() if m), key=lambda manifest: manifest["number"])
        for number, manifest in enumerate(days):
            if manifest["number"] != number:
                raise DataError(
                    f"{folder}: the day that was written as number {number} is missing, with the "
                    f"tokens that entered on it; restore it, or delete {folder} and write all "
                    "days again"
                )
        return cls(folder, log, {datetime.date.fromisoformat(m["day"]): m for m in days})

    @property
    def config(self) -> dict[str, Any]:
        return self.log["config"]

    @cached_property
    def raw_schema(self) -> Schema:
        """The schema with measured numbers, but without sizes of vocabularies."""
        return Schema.model_validate(self.log["schema"])

    def sizes(self, through: int | None = None) -> dict[str, int]:
        """Number of ids in each vocabulary, through the day of this number; default: the last."""
        if not self.days:
            return {}
        manifests = list(self.days.values())
        return dict(manifests[-1 if through is None else through]["vocabularies"])

    def schema(self, through: int | None = None) -> Schema:
        """The schema with the sizes of `sizes(through)`."""
        sizes = self.sizes(through)
        return self.raw_schema.fitted(
            {
                feature.name: {"vocabulary_size": sizes[feature.vocabulary]}
                for feature in self.raw_schema
                if isinstance(feature, TOKEN_KINDS)
            }
        )

    def vocabulary(self, name: str, through: int | None = None) -> Vocabulary:
        """The tokens through the day of this number.

        Raises:
            DataError: tokens of a day are missing or changed.
        """
        manifests = list(self.days.values())
        chosen = manifests if through is None else manifests[: through + 1]
        of_name = next(f for f in self.raw_schema if getattr(f, "vocabulary", "") == name)
        content = b""
        for manifest in chosen:
            path = f"{self.folder}/{manifest['day']}/vocabularies/{name}.txt"
            try:
                brought = files.read(path)
            except OSError:
                brought = None
            if brought is None or google_crc32c.value(brought) != manifest["brought"][name]:
                raise DataError(
                    f"{path}: {'missing' if brought is None else 'changed'}; the vocabulary shrank "
                    "or changed, and later ids would stand for other tokens. Restore the file, or "
                    f"delete {self.folder} and write all days again"
                )
            content += brought
        vocabulary = Vocabulary.parse(content, of_name.dtype, of_name.hash_buckets)
        size = chosen[-1]["vocabularies"][name] if chosen else FIRST_TOKEN_ID
        if vocabulary.size != size:
            raise DataError(
                f"{self.folder}: vocabulary {name!r} has {vocabulary.size:,} ids where the day "
                f"{chosen[-1]['day'] if chosen else ''} says {size:,}"
            )
        return vocabulary

    def shards(self, day: datetime.date, domain: str) -> list[dict[str, Any]]:
        """`{name, rows, positives, bytes, numbers}` of a day's shards; names are relative to the
        folder. `numbers` are the least and the greatest of each numeric feature."""
        return self.days[day]["domains"][domain]

    def rows(self, day: datetime.date, domain: str) -> int:
        return sum(shard["rows"] for shard in self.shards(day, domain))


def ends(shards: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By numeric feature, the least and the greatest number in some shards: `{min, max}`."""
    found: dict[str, list[float]] = {}
    for shard in shards:
        for name, numbers in shard.get("numbers", {}).items():  # an older log has none
            found.setdefault(name, []).extend(numbers)
    return {name: {"min": min(numbers), "max": max(numbers)} for name, numbers in found.items()}
