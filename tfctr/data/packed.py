"""Reads Examples of a dataset as rows of integers, many times faster than `tf.io.parse_example`.

All Examples of a dataset have one layout (`beam_pipelines.tfrecord.examples`): a field's values are
at the same bytes in each. The manifest holds this layout, so a block of records is decoded with a
few operations on `uint8 [N, bytes]`, not field by field.
"""

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf

from tfctr.data.records import constant_places


class Packed:
    """Some fields of records as int32 `[N, C]`; floats as their bits.

    Args:
        layout: of the manifest: `head`, the bytes before any text, as hexadecimal text, and
            `fields`: `{name: {offset, values, width}}`. `width` is the number of bytes of an
            integer; 0 stands for floats.
        lists: names of the fields that hold a list, even one of length 1.
        names: the fields to read. At least one.

    Raises:
        ValueError: a field's integers may be wider than 32 bits; `Dataset.columns` reads them.
    """

    def __init__(
        self, layout: dict[str, Any], lists: Collection[str], names: Sequence[str]
    ) -> None:
        self.names = tuple(names)
        self.lists = lists
        self.head = bytes.fromhex(layout["head"])
        self.constant = constant_places(layout)
        self.widths: dict[int, list[int]] = {}  # bytes of a value -> offsets of the values
        self.columns: dict[str, tuple[int, int, int]] = {}  # field -> first column, values, width
        chosen = {name: layout["fields"][name] for name in self.names}
        for name, field in chosen.items():
            if field["width"] > 5:
                raise ValueError(f"{name}: 64-bit integers are not read in batches")
        self.num_columns = 0  # C
        for width in sorted({field["width"] for field in chosen.values()}):
            for name, field in chosen.items():
                if field["width"] == width:
                    size = field["values"] * (width or 4)
                    self.widths.setdefault(width, []).extend(
                        range(field["offset"], field["offset"] + size)
                    )
                    self.columns[name] = (self.num_columns, field["values"], width)
                    self.num_columns += field["values"]

    def decode(self, records: Any) -> Any:
        """Records `[N]` as int32 `[N, C]`."""
        content = tf.io.decode_raw(records, tf.uint8, fixed_length=len(self.head))
        expected = tf.constant([self.head[i] for i in self.constant], tf.uint8)
        check = tf.debugging.assert_equal(
            tf.gather(content[0], self.constant),
            expected,
            message="a record has another layout than the manifest says; run `tfctr prepare` again",
        )
        with tf.control_dependencies([check]):
            parts = [self._values(content, width, at) for width, at in self.widths.items()]
        return tf.concat(parts, axis=1)

    def _values(self, content: Any, width: int, at: list[int]) -> Any:
        found = tf.gather(content, at, axis=1)
        if not width:
            return tf.bitcast(tf.reshape(found, (-1, len(at) // 4, 4)), tf.int32)
        digits = tf.cast(tf.reshape(found, (-1, len(at) // width, width)), tf.int32)
        if width == 1:
            return digits[:, :, 0]
        return tf.reduce_sum(
            tf.bitwise.left_shift(
                tf.bitwise.bitwise_and(digits, 127), tf.range(0, 7 * width, 7, dtype=tf.int32)
            ),
            axis=2,
        )

    def unpack(self, rows: Any) -> dict[str, Any]:
        """Int32 `[B, C]` as ids int64 and floats, by field: `[B]`, or `[B, M]` of lists."""
        return {name: self.column(rows, name) for name in self.names}

    def column(self, rows: Any, name: str) -> Any:
        """One field of `unpack`."""
        first, values, width = self.columns[name]
        found = rows[:, first : first + values] if name in self.lists else rows[:, first]
        return tf.cast(found, tf.int64) if width else tf.bitcast(found, tf.float32)
