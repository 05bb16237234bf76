"""Distillation: dual-head students trained on rationales (`dhrd-distill`)."""
