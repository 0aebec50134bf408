"""Language models: pretrained ones from a preset or a folder, and small ones trained here."""
