"""A config for a log that nobody has described: `tfctr init`.

What a sample of the rows shows is written down; what it leaves open is a question in a comment.
"""

from tfctr.guess.config import default_output, guess, guess_features

__all__ = ["default_output", "guess", "guess_features"]
