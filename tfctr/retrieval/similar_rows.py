"""Names of what lies beside a row: similar rows, and what a teacher makes of them."""

PREFIX = "retrieved_"  # before a feature's name: the found rows' values of it
LABEL = "retrieved_label"
NO_ROW, NOT_CLICKED, CLICKED = 0, 1, 2  # what `retrieved_label` may be
HINT = "hint"  # a teacher's `V` vectors one behind the other, `V * D` floats
