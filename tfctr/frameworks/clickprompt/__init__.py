"""ClickPrompt: a CTR model writes the prompts that a language model guesses masked words with."""

from tfctr.frameworks.clickprompt.masked_lm import PromptedMaskedLM
from tfctr.frameworks.clickprompt.prompt_generator import PromptGenerator
from tfctr.frameworks.clickprompt.student import ClickPromptStudent

__all__ = ["ClickPromptStudent", "PromptGenerator", "PromptedMaskedLM"]
