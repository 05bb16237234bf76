"""Made rows with the schemas of ARC, HellaSwag and WinoGrande, which the stock tasks load."""

from __future__ import annotations

from pathlib import Path

from made_super_glue import write_dataset

COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "pink", "gold", "teal")


def _arc_rows() -> list[dict]:
    """Three to five choices, as in ARC, named by letters or by numbers."""
    rows = []
    for i, colour in enumerate(COLOURS):
        texts = [*COLOURS[i + 1 :], *COLOURS][: 2 + i % 3]
        texts.insert(i % (len(texts) + 1), colour)
        names = list("12345" if i % 2 else "ABCDE")[: len(texts)]
        rows.append(
            {
                "id": str(i),
                "question": f"What colour is a {colour} cup?",
                "choices": {"text": texts, "label": names},
                "answerKey": names[texts.index(colour)],
            }
        )
    return rows


def _hellaswag_rows() -> list[dict]:
    return [
        {
            "ind": i,
            "activity_label": "Painting",
            "ctx_a": f"A man opens a pot of {colour} paint.",
            "ctx_b": "he",
            "endings": [
                f"paints a wall {other}. [substeps] The end."
                for other in [*sorted(COLOURS[:4])[:3], colour]
            ],
            "label": "3",
        }
        for i, colour in enumerate(COLOURS[4:] * 2)
    ]


def _winogrande_rows() -> list[dict]:
    return [
        {
            "sentence": f"The {colour} cup did not fit into the box because the _ was too {size}.",
            "option1": "cup",
            "option2": "box",
            "answer": "1" if size == "big" else "2",
        }
        for colour in COLOURS
        for size in ("big", "small")
    ]


STOCK_ROWS = {  # task: (data set, configuration, rows)
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", _arc_rows()),
    "hellaswag": ("Rowan/hellaswag", "default", _hellaswag_rows()),
    "winogrande": ("allenai/winogrande", "winogrande_xl", _winogrande_rows()),
}


def write_stock_data(folder: Path) -> None:
    """The stock tasks load these rows when `folder` is the current one."""
    for dataset, configuration, rows in STOCK_ROWS.values():
        write_dataset(folder / dataset, {configuration: rows}, ("train", "validation", "test"))
