"""Language models: pretrained ones from a preset or a folder, and small ones trained here."""

from tfctr.language.pretrained import (
    load_encoder,
    load_masked_lm_head,
    load_tokenizer,
    locate,
)

__all__ = ["load_encoder", "load_masked_lm_head", "load_tokenizer", "locate"]
