"""Answers read back from logged samples: made ones, and those the harness itself writes."""

from __future__ import annotations

import doctest
import random
from pathlib import Path

import lm_eval
import numpy as np
import pytest
from lm_eval import tasks as harness_tasks
from lm_eval.loggers import EvaluationTracker
from made_stock_rows import STOCK_ROWS, write_stock_data
from made_super_glue import ROWS, repeated, write_super_glue
from result_files import (
    accuracy_task,
    labels_task,
    sample,
    task_result,
    with_choices,
    with_text,
    write_results,
)
from scripted_lm import ScriptedLM, random_log_likelihood

from dhrd_plugin.decisions import gold_choices
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import task_folders
from dhrd_plugin.report import answers
from dhrd_plugin.report.answers import Answer, load_answers
from dhrd_plugin.report.results import load_runs

HF = {"model": "hf", "model_args": {"pretrained": "org/tiny"}}
SUPER_GLUE = ("boolq", "cb", "copa", "multirc", "record", "sglue_rte", "wic", "wsc")
TASKS = (*SUPER_GLUE, "sglue_multirc", "super-glue-dhrd-paper", "super-glue-cot", *STOCK_ROWS)


def read(folder: Path, made: dict) -> list[Answer]:
    path = write_results(folder, {"qa": made}, config=HF)
    (score,) = load_runs([str(path)])[0].scores
    return load_answers(score)


def choice_task(target: str, right: int, log_likelihoods, pairs, doc=None):
    line = sample(0, doc or {"q": 0}, target, {"acc": float(right)})
    return task_result([with_choices(line, pairs, log_likelihoods)], {"acc,none": float(right)})


def tails(*continuations: str) -> list[tuple[str, str]]:
    return [("Q:", f" {continuation}") for continuation in continuations]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """(score, task) of every task, scored with a model that guesses, written by the harness."""
    folder = tmp_path_factory.mktemp("logged")
    stock = Path(harness_tasks.__file__).parent
    families = ("super_glue", "arc", "hellaswag", "winogrande")
    manager = harness_tasks.TaskManager(
        include_path=[*(str(stock / f) for f in families), *map(str, task_folders())],
        include_defaults=False,
    )
    rng = random.Random(0)

    def decode(request) -> str:
        words = ("yes", "no", "True", "False", "Neither", "B", "Rome", "it fell.", "", "both")
        return f"Some thoughts.\nFinal Answer: {rng.choice(words)}"

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_super_glue(folder, {name: repeated(rows, 6) for name, rows in ROWS.items()})
        write_stock_data(folder)
        tracker = EvaluationTracker(output_path=str(folder / "results"))
        found = lm_eval.simple_evaluate(
            model=ScriptedLM(decode, random_log_likelihood(0)),
            tasks=list(TASKS),
            task_manager=manager,
            bootstrap_iters=0,
            evaluation_tracker=tracker,
        )
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        for name, lines in samples.items():
            tracker.save_results_samples(task_name=name, samples=lines)
        (run,) = load_runs([str(folder / "results")])
        tasks = manager.load(list(samples))["tasks"]
    return [(score, tasks[score.task]) for score in run.scores]


def test_choices_are_read_as_the_harness_scores_them(logged):
    """Stock tasks of every kind of target, the paper's form, and ours: gold and right."""
    compared = [pair for pair in logged if pair[1].config.output_type == "multiple_choice"]
    assert len(compared) >= 19
    for score, task in compared:
        docs = list(task.eval_docs)
        found = load_answers(score)
        for answer in found:
            row = f"{score.task}/{answer.doc_id}"
            rewarded = gold_choices(task, docs[answer.doc_id], len(answer.choices), row)
            assert (answer.gold, answer.right) == (rewarded, answer.predicted in rewarded), row
        assert {answer.right for answer in found} == {True, False}, f"{score.task}: tells nothing"


def test_decoded_texts_are_read_with_their_answers(logged):
    compared = [score for score, _ in logged if score.mark]
    assert len(compared) == 8
    for score in compared:
        metric = "acc" if "acc" in score.metrics else "em"
        for answer, line in zip(load_answers(score), score.samples, strict=True):
            assert answer.right == (line.values[metric] == 1)
            assert answer.reasoning == f"Some thoughts.\nFinal Answer: {answer.written}"
            assert (answer.choices, answer.probs, answer.predicted) == ((), None, None)


def test_labels_become_question_choices_and_probabilities(tmp_path):
    made = labels_task([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]], golds=[0, 2])
    first, second = read(tmp_path, made)
    assert (first.doc_id, first.question) == (0, "Text 0?")
    assert first.choices == ("True", "False", "Neither")
    assert first.probs == pytest.approx((0.7, 0.2, 0.1))
    assert (first.predicted, first.gold, first.right) == (0, {0}, True)
    assert (second.predicted, second.gold, second.right) == (1, {2}, False)
    assert first.normalised


def test_log_likelihoods_of_a_language_model_become_a_distribution(tmp_path):
    (answer,) = read(tmp_path, choice_task("1", 1, [-2001.0, -2000.0], tails("no", "yes")))
    assert answer.probs == pytest.approx((1 / (1 + np.e), np.e / (1 + np.e)))
    assert not answer.normalised


def test_what_all_candidates_share_goes_into_the_question(tmp_path):
    pairs = tails("the dog barks at night.", "the old cat sings at night.")
    made = choice_task("the dog barks at night.", 1, [-1.0, -2.0], pairs)
    made["samples"].append(
        {**choice_task("b", 1, [-2.0, -1.0], tails("a", "b"))["samples"][0], "doc_id": 1}
    )
    first, second = read(tmp_path, made)
    assert (first.question, first.choices) == (
        "Q: the ___ at night.",
        ("dog barks", "old cat sings"),
    )
    assert (second.question, second.choices, second.gold) == ("Q:", ("a", "b"), {1})
    assert first.pairs == tuple(pairs)


@pytest.mark.parametrize(
    "target, choices, gold",
    [
        ("2", ("a", "b", "c"), {2}),
        ("b", ("a", "b", "c"), {1}),
        ("[0, 2]", ("a", "b", "c"), {0, 2}),
        ("['b', 'c']", ("a", "b", "c"), {1, 2}),
        ("True", ("no", "yes"), {1}),
        ("True", ("True", "False"), {0}),
        ("-1", ("a", "b", "c"), set()),
        ("[not a list", ("a", "b", "c"), set()),
    ],
)
def test_forms_of_a_target(tmp_path, target, choices, gold):
    wrong = max(set(range(len(choices))) - gold)
    log_likelihoods = [-1.0 if i == wrong else -2.0 for i in range(len(choices))]
    (answer,) = read(tmp_path, choice_task(target, 0, log_likelihoods, tails(*choices)))
    assert (answer.gold, answer.right) == (gold, False)


@pytest.mark.parametrize("right, gold", [((1, 0), ({0}, {1})), ((0, 1), ({1}, {2}))])
def test_a_number_among_numbers_is_read_as_the_accuracy_has_it(tmp_path, right, gold):
    """Target "1" of the choices 1, 2, 3 is the first as a text, and the second as an index."""
    made = choice_task("1", right[0], [-1.0, -2.0, -3.0], tails("1", "2", "3"))
    other = choice_task("2", right[1], [-2.0, -3.0, -1.0], tails("1", "2", "3"))
    made["samples"].append({**other["samples"][0], "doc_id": 1})
    assert tuple(answer.gold for answer in read(tmp_path, made)) == gold


def test_requests_behind_an_empty_context_are_no_choices(tmp_path):
    """`acc_mutual_info` asks for the same continuations once more."""
    pairs = [*tails("no", "yes"), ("", " no"), ("", " yes")]
    (answer,) = read(tmp_path, choice_task("1", 1, [-2.0, -1.0, -0.5, -0.1], pairs))
    assert (answer.choices, answer.predicted, len(answer.probs)) == (("no", "yes"), 1, 2)


def test_of_several_filters_the_accuracy_tells_which_answer_counts(tmp_path):
    lines = [
        with_text(sample(0, {"q": 0}, "4", {"exact_match": right}, name), "2+2?", "It is 4.", said)
        for name, said, right in (("strict", "[invalid]", 0.0), ("flexible", "4", 1.0))
    ]
    made = task_result(lines, {"exact_match,strict": 0.0, "exact_match,flexible": 1.0})
    (answer,) = read(tmp_path / "a", made)
    assert (answer.written, answer.right) == ("[invalid]", False)
    made = task_result(lines, {"exact_match,flexible": 1.0, "exact_match,strict": 0.0})
    (answer,) = read(tmp_path / "b", made)
    assert (answer.written, answer.right, answer.reasoning) == ("4", True, "It is 4.")


@pytest.mark.parametrize(
    "values, right",
    [
        ({"em": 0.0, "acc": 1.0}, True),
        ({"f1": 0.5, "em": 1.0}, True),
        ({"acc": [0, 0, 1, -0.1], "row_acc": 0.0}, False),  # of a question's rows together
    ],
)
def test_which_metric_says_that_a_document_is_right(tmp_path, values, right):
    """The likeliest choice would say the contrary."""
    log_likelihoods = [-2.0, -1.0] if right else [-1.0, -2.0]
    line = with_choices(sample(0, {"q": 0}, 0, values), tails("a", "b"), log_likelihoods)
    made = task_result([line], {f"{name},none": 0.5 for name in values})
    assert read(tmp_path, made)[0].right == right


def test_without_an_accuracy_the_likeliest_choice_is_held_against_gold(tmp_path):
    line = sample(0, {"q": 0}, "1", {"mc2": 0.6})
    made = task_result([with_choices(line, tails("a", "b"), [-2.0, -1.0])], {"mc2,none": 0.6})
    (answer,) = read(tmp_path, made)
    assert answer.right


def test_a_log_that_does_not_say_what_was_right_is_an_error(tmp_path):
    line = with_text(sample(0, {"q": 0}, "a poem", {"bleu": 0.3}), "Write!", "Roses", "Roses")
    with pytest.raises(DHRDError, match=r"task qa does not log .* \(its metrics: bleu\)"):
        read(tmp_path, task_result([line], {"bleu,none": 0.3}))


def test_a_log_without_prompts_is_named_with_its_line(tmp_path):
    with pytest.raises(DHRDError, match=r"jsonl:1: holds no prompt .*KeyError: 'arguments'"):
        read(tmp_path, accuracy_task([1, 0]))


def test_examples_in_docstrings_are_true():
    result = doctest.testmod(answers)
    assert result.attempted and not result.failed
