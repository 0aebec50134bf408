"""Field names of side outputs: similar rows, and a teacher's hints."""

PREFIX = "retrieved_"  # before a feature's name: its values in the retrieved rows
LABEL = "retrieved_label"
NO_ROW, NOT_CLICKED, CLICKED = 0, 1, 2  # values of `retrieved_label`
HINT = "hint"  # a teacher's `V` vectors, concatenated: `V * D` floats
