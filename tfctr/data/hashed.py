"""Buckets in place of tokens, for vocabularies that can't be listed."""

import pyarrow as pa


def to_buckets(tokens: pa.Array, num_buckets: int) -> pa.Array:
    """The number of each token's bucket, in the tokens' own type: string or int64; null stays null.

    It is the hash of a served graph (`tf.strings.to_hash_bucket_fast`, FarmHash), so a worker loads
    TensorFlow.
    """
    import tensorflow as tf

    texts = tokens.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
    with tf.device("/CPU:0"):
        buckets = tf.strings.to_hash_bucket_fast(tf.constant(texts, tf.string), num_buckets).numpy()
    null = tokens.is_null().to_numpy(zero_copy_only=False)
    return pa.array(buckets, mask=null).cast(tokens.type)
