"""A local server, for a laptop and for tests, that answers as TF Serving does."""
