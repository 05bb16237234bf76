"""A folder that loads as `aps/super_glue`: made rows with the real schemas, no network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

# Two rows per task; train and validation are the same rows.
ROWS: dict[str, list[dict]] = {
    "boolq": [
        {"question": "is tea a drink", "passage": "Tea is drunk hot.", "idx": 0, "label": 1},
        {"question": "is tea a stone", "passage": "Tea is drunk hot.", "idx": 1, "label": 0},
    ],
    "cb": [
        {"premise": "It rains.", "hypothesis": "there is rain", "idx": 0, "label": 0},
        {"premise": "It rains.", "hypothesis": "the cat sleeps", "idx": 1, "label": 2},
    ],
    "copa": [
        {
            "premise": "The glass broke.",
            "choice1": "It fell.",
            "choice2": "It was full.",
            "question": "cause",
            "idx": 0,
            "label": 0,
        },
        {
            "premise": "The sun rose.",
            "choice1": "It got dark.",
            "choice2": "It got light.",
            "question": "effect",
            "idx": 1,
            "label": 1,
        },
    ],
    "multirc": [
        {
            "paragraph": "Ann saw a fox.",
            "question": "What did Ann see?",
            "answer": "a fox",
            "idx": {"paragraph": 0, "question": 0, "answer": 0},
            "label": 1,
        },
        {
            "paragraph": "Ann saw a fox.",
            "question": "What did Ann see?",
            "answer": "a yak",
            "idx": {"paragraph": 0, "question": 0, "answer": 1},
            "label": 0,
        },
    ],
    "record": [
        {
            "passage": "Rome is old.\n@highlight\nRome is in Italy\n@highlight\nIt is big",
            "query": "Many people visit @placeholder every year.",
            "entities": ["Rome", "Italy", "Bern", "Rome"],
            "answers": ["Rome", "Italy"],
            "idx": {"passage": 0, "query": 0},
        },
        {
            "passage": "The United Nations met Bern.\n@highlight\nIt was long",
            "query": "@placeholder met on Monday.",
            "entities": ["The United Nations", "Bern"],
            "answers": ["United Nations"],
            "idx": {"passage": 1, "query": 0},
        },
    ],
    "rte": [
        {"premise": "It rains.", "hypothesis": "There is rain.", "idx": 0, "label": 0},
        {"premise": "It rains.", "hypothesis": "There is snow.", "idx": 1, "label": 1},
    ],
    "wic": [
        {
            "word": "bank",
            "sentence1": "A river bank.",
            "sentence2": "A savings bank.",
            "start1": 8,
            "end1": 12,
            "start2": 10,
            "end2": 14,
            "idx": 0,
            "label": 0,
        },
        {
            "word": "bank",
            "sentence1": "A steep bank.",
            "sentence2": "The river bank.",
            "start1": 8,
            "end1": 12,
            "start2": 10,
            "end2": 14,
            "idx": 1,
            "label": 1,
        },
    ],
    "wsc.fixed": [
        {
            "text": "Ann met Eve because she called.",
            "span1_index": 0,
            "span2_index": 4,
            "span1_text": "Ann",
            "span2_text": "she",
            "idx": 0,
            "label": 0,
        },
        {
            "text": "Ann met Eve because she called.",
            "span1_index": 2,
            "span2_index": 4,
            "span1_text": "Eve",
            "span2_text": "she",
            "idx": 1,
            "label": 1,
        },
    ],
}


def repeated(rows: list[dict], times: int) -> list[dict]:
    """The rows over and over, with numbers of their own."""
    copies = []
    for copy in range(times):
        for row in rows:
            index = row["idx"]
            if isinstance(index, dict):  # MultiRC and ReCoRD: the outermost level is the passage
                first, *_ = index
                index = index | {first: index[first] + copy * len(rows)}
            else:
                index += copy * len(rows)
            copies.append(row | {"idx": index})
    return copies


def write_super_glue(folder: Path, rows: dict[str, list[dict]] = ROWS) -> None:
    """Write `folder/aps/super_glue`; the stock tasks load it when `folder` is the current one."""
    write_dataset(folder / "aps" / "super_glue", rows)


def write_dataset(
    root: Path, rows: dict[str, list[dict]], splits: Sequence[str] = ("train", "validation")
) -> None:
    """A folder that loads as a data set of the hub: per configuration these rows in each split."""
    configs = []
    for name, lines in rows.items():
        (root / name).mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        # `datasets` caches local data under the files' names, whatever is in them.
        content = hashlib.sha256(text.encode()).hexdigest()[:16]
        files = []
        for split in splits:
            path = f"{name}/{split}-{content}.jsonl"
            (root / path).write_text(text)
            files.append({"split": split, "path": path})
        configs.append({"config_name": name, "data_files": files})
    (root / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
