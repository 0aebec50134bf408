"""Exports a trained model as a SavedModel that TF Serving can load.

The entry point is `saved_model.export`, which is also `tfctr.serving.export`.
"""
