"""ClickPrompt: a CTR model generates prompts for a language model that predicts masked words."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ClickPromptStudent": "student",
        "PromptGenerator": "prompt_generator",
        "PromptedMaskedLM": "masked_lm",
    },
)
