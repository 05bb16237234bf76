"""Export: one task of a student as a model that other programs load (`dhrd-distill export`)."""
