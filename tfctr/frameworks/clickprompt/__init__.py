"""ClickPrompt: a CTR model writes the prompts that a language model guesses masked words with."""

from tfctr.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "ClickPromptStudent": "student",
        "PromptGenerator": "prompt_generator",
        "PromptedMaskedLM": "masked_lm",
    },
)
