"""DHRD: dual-head reasoning distillation, scored inside lm-evaluation-harness.

Importing this package loads neither torch nor lm_eval; the modules below it do so when needed.
"""

__version__ = "0.1.0"
