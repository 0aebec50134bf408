"""Turns a trained model into a version of a served one, which any TF Serving can load.

`saved_model.export` is the way in. `tfctr.serving.export` is that function; hence the room's name.
"""
