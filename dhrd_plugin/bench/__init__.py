"""`dhrd-bench`: how fast the pooled head answers, against the ways it replaces."""
