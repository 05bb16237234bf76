"""Teachers: label-consistent rationales as JSONL (`dhrd-teach`)."""
