"""The data of the `scenes` task, which lies beside this file."""

from pathlib import Path

import datasets


def load(**_):
    """Train and validation rows; the harness passes the task's metadata, of which none is needed."""
    folder = Path(__file__).parent / "data"
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    return datasets.load_dataset("json", data_files=files)
