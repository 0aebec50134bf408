"""Language models: pretrained ones from a preset or a folder, and small ones trained here."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "EncoderConfig": "config",
        "MaskedLM": "masked_lm",
        "PromptedEncoder": "prompted_encoder",
        "SmallEncoder": "config",
        "TextConfig": "config",
        "TextEncoder": "text_encoder",
        "Textifier": "text",
        "load_encoder": "pretrained",
        "load_tokenizer": "pretrained",
    },
)
