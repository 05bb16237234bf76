"""Keep other libraries' progress bars and notices out of our commands' output."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Called by our commands before they import anything heavy; errors still show.

    Never called inside somebody else's process (the stock `lm_eval`): its output is its own.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bars; ours are rich's
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lm_eval", "bitsandbytes"):  # the latter is imported by PEFT where it is installed
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
