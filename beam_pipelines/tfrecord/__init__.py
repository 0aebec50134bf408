"""Encodes columns as `tf.train.Example`s in TFRecord files."""
