"""Training throughput of tfctr and of other libraries on the same batches."""
