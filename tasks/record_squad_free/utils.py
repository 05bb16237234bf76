"""ReCoRD as the harness has it (super_glue/record/util.py, MIT licence), without transformers.

Prompts, choices and scores are the stock task's; only SQuAD's exact match and token F1, which
transformers 5.20 removed, are written out.
"""

from collections import Counter

import datasets
import numpy as np
from lm_eval.api.metrics import metric_max_over_ground_truths
from lm_eval.tasks.super_glue.record.t5_utils import normalize_squad


def doc_to_text(doc: dict) -> str:
    initial_text, *highlights = doc["passage"].strip().split("\n@highlight\n")
    return initial_text + "\n\n" + "".join(f"  - {highlight}.\n" for highlight in highlights)


def doc_to_target(doc: dict) -> str:
    return format_answer(doc["query"], doc["answers"][0])


def doc_to_choice(doc: dict) -> list[str]:
    return [format_answer(doc["query"], entity) for entity in doc["entities"]]


def format_answer(query: str, entity: str) -> str:
    return f"  - {query}".replace("@placeholder", entity)


def process_docs(dataset: datasets.Dataset) -> datasets.Dataset:
    def distinct_entities(doc):
        return {
            "passage": doc["passage"],
            "query": doc["query"],
            "entities": sorted(set(doc["entities"])),
            "answers": sorted(set(doc["answers"])),
        }

    return dataset.map(distinct_entities)


def process_results(doc: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Score the likeliest entity against the closest of the right ones."""
    winner = doc["entities"][int(np.argmax([loglikelihood for loglikelihood, _ in results]))]
    return {
        "f1": metric_max_over_ground_truths(token_f1, winner, doc["answers"]),
        "em": metric_max_over_ground_truths(exact, winner, doc["answers"]),
    }


def exact(prediction: str, target: str) -> int:
    return int(normalize_squad(prediction) == normalize_squad(target))


def token_f1(prediction: str, target: str) -> float:
    """Harmonic mean of token precision and recall; two texts without tokens agree."""
    predicted, wanted = normalize_squad(prediction).split(), normalize_squad(target).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
