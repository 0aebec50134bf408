"""Rows as `tf.train.Example`s in TFRecord files, by columns."""
