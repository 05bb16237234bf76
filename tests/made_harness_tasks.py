"""Small harness tasks of both formulations with their rationales, as a user would write them."""

from __future__ import annotations

import json
from pathlib import Path

COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {FILES}}
output_type: multiple_choice
doc_to_target: label
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
WEATHER = """
task: made_weather
training_split: train
validation_split: validation
doc_to_text: "{{text}} Is it wet?"
doc_to_choice: ["no", "yes"]
"""
BECAUSE = """
task: made_because
training_split: train
validation_split: validation
doc_to_text: "{{text}} because"
doc_to_choice: "{{[choice1, choice2]}}"
"""
UNTAUGHT = """
task: made_untaught
validation_split: validation
doc_to_text: "{{text}} Is it wet?"
doc_to_choice: ["no", "yes"]
"""
WET = ("Rain falls.", "It pours.", "Drops drip.", "Rain drips.", "It rains.", "Drops fall.")
DRY = ("Sun burns.", "Dust flies.", "It bakes.", "Sand burns.", "It glows.", "Dust burns.")
PLACES = ("Here", "There", "Outside", "Today")
N_TRAIN, N_VALIDATION = 40, 8


def _weather_rows() -> list[dict]:
    return [
        {"text": f"{place}: {text}", "label": label}
        for place in PLACES
        for pair in zip(DRY, WET, strict=True)
        for label, text in enumerate(pair)
    ]


def _because_rows() -> list[dict]:
    rows = []
    for index, row in enumerate(_weather_rows()):
        right, wrong = ("it was hot.", "it rained.")[:: -1 if row["label"] else 1]
        choices = (right, wrong) if index % 4 < 2 else (wrong, right)
        label = choices.index(right)
        rows.append(
            {"text": row["text"], "choice1": choices[0], "choice2": choices[1], "label": label}
        )
    return rows


def write_made_tasks(folder: Path) -> None:
    """Three tasks in `folder`, of 40 training and 8 validation rows, and `rationales.jsonl`.

    Every second training row has a rationale, as a bare line. `made_untaught` has no training
    split.
    """
    lines = []
    tasks = {"made_weather": (WEATHER, _weather_rows()), "made_because": (BECAUSE, _because_rows())}
    tasks["made_untaught"] = (UNTAUGHT, _weather_rows())
    for name, (template, rows) in tasks.items():
        files = []
        for split, part in (("train", rows[:N_TRAIN]), ("validation", rows[N_TRAIN:])):
            path = folder / f"{name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
            files.append(f"{split}: {path}")
        common = COMMON.replace("FILES", ", ".join(files))
        (folder / f"{name}.yaml").write_text(template.strip() + common)
        if name != "made_untaught":
            lines += [
                {"task": name, "split": "train", "index": i, "rationale": f"We read: {row['text']}"}
                for i, row in enumerate(rows[:N_TRAIN])
                if i % 4 in (0, 3)
            ]
    (folder / "rationales.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
