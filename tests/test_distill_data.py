"""Training and dev rows: apart, stratified, drawn by the seed, joined with their rationales."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from made_decisions import candidate_decision, label_decision

from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from distill import data as data_module
from distill.data import carve_dev, load_training_data, passages


@pytest.fixture
def load(made_tasks):
    def make(*tasks, rationales=None, dev_rows=None, seed=0):
        files = [made_tasks / "rationales.jsonl"] if rationales is None else rationales
        return load_training_data(
            tasks, files, dev_rows=dev_rows, seed=seed, include_path=str(made_tasks)
        )

    return make


@pytest.fixture
def write(tmp_path):
    def make(*records):
        path = tmp_path / "r.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return make


def bare(index=0, task="made_weather", **changes):
    return {"task": task, "split": "train", "index": index, "rationale": "Why."} | changes


def test_dev_rows_are_a_stratified_tenth_and_never_trained_on(load):
    data = load("made_weather", "made_because")
    for task in ("made_weather", "made_because"):
        train, dev = ([d for d in part if d.task == task] for part in (data.train, data.dev))
        assert (len(train), len(dev)) == (36, 4)
        assert not {d.id for d in train} & {d.id for d in dev}
        assert Counter(d.label for d in dev) == {0: 2, 1: 2}
    assert {d.split for d in [*data.train, *data.dev]} == {"train"}


def test_seed_draws_the_dev_rows(load):
    drawn = [tuple(d.index for d in load("made_weather", seed=seed).dev) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_validation_split_is_never_looked_at(load, monkeypatch):
    asked = []
    real = data_module.load_decisions
    monkeypatch.setattr(
        data_module, "load_decisions", lambda task, split: asked.append(split) or real(task, split)
    )
    load("made_weather", "made_because")
    assert asked == ["train", "train"]


def test_heads_know_what_the_student_must(load):
    heads = load("made_because", "made_weather").heads
    assert list(heads) == ["made_because", "made_weather"]
    assert heads["made_weather"].choices == ("no", "yes")
    assert heads["made_weather"].n_outputs == 2
    assert heads["made_because"].choices is None
    assert heads["made_because"].n_outputs == 1
    assert {head.version for head in heads.values()} == {"1.0"}


def test_rationales_belong_to_their_rows(load):
    data = load("made_weather")
    assert len(data.rationales) == 20
    for decision in [*data.train, *data.dev]:
        text = data.rationales.get(decision.id)
        assert (text is not None) is (decision.index % 4 in (0, 3))
        assert text is None or decision.context.startswith(text.removeprefix("We read: "))


def test_pooled_baseline_needs_no_rationales(load):
    assert load("made_weather", rationales=[]).rationales == {}


def test_rationales_for_none_of_the_rows_are_an_error(load, write):
    path = write(bare(task="other"))
    with pytest.raises(DHRDError, match=f"No rationale in {path} belongs to a training row"):
        load("made_weather", rationales=[path])


def test_rationales_on_dev_rows_alone_are_an_error(load, write):
    dev = load("made_weather").dev[0]
    with pytest.raises(DHRDError, match="belongs to a training row"):
        load("made_weather", rationales=[write(bare(dev.index))])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (bare(40), r"r\.jsonl:2: there is no row made_weather/train/40"),
        (bare(1, input_sha="0" * 16), r"r\.jsonl:2: row made_weather/train/1 has changed"),
        (bare("1"), r"r\.jsonl:2: field 'index' is '1', need int"),
        (bare(1, schema="dhrd.rationale/9"), r"r\.jsonl:2: schema 'dhrd.rationale/9'"),
    ],
)
def test_record_that_does_not_fit_is_named_by_file_and_line(load, write, record, message):
    with pytest.raises(DHRDError, match=message) as refusal:
        load("made_weather", rationales=[write(bare(0), record)])
    assert refusal.value.exit_code == EXIT_BAD_INPUT


def test_hash_tells_other_rows_and_rationales(load, write):
    original = load("made_weather", rationales=[write(bare(0), bare(1))]).sha
    assert load("made_weather", rationales=[write(bare(1), bare(0))]).sha == original
    for other in (
        load("made_weather", rationales=[write(bare(0))]),
        load("made_weather", rationales=[write(bare(0), bare(1, rationale="Other."))]),
        load("made_weather", rationales=[write(bare(0), bare(1))], seed=1),
        load("made_weather", "made_because", rationales=[write(bare(0), bare(1))]),
    ):
        assert other.sha != original


# Carving


def rows(labels):
    return [label_decision(index, gold=label) for index, label in enumerate(labels)]


def test_no_more_than_two_hundred_dev_rows():
    assert len(carve_dev(rows([0, 1] * 2000), None, seed=0)) == 200
    assert len(carve_dev(rows([0, 1] * 500), None, seed=0)) == 100
    assert len(carve_dev(rows([0, 1] * 2), None, seed=0)) == 1


def test_dev_rows_keep_the_shares_of_the_classes():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    dev = carve_dev(rows(labels), 20, seed=3)
    assert Counter(labels[index] for index in dev) == {0: 12, 1: 6, 2: 2}


@pytest.mark.parametrize(
    ("labels", "dev_rows"),
    [
        ([0, 0, 0, 0, 1], 2),  # a class with a single row
        ([0, 0, 1, 1, 2, 2], 1),  # fewer dev rows than classes
        ([0, 0, 1, 1, 2, 2], 4),  # fewer training rows than classes
        ([0, 0, 0, 0], 2),
        ([0, 1], 1),
    ],
)
def test_rows_are_drawn_also_where_classes_allow_no_strata(labels, dev_rows):
    assert len(carve_dev(rows(labels), dev_rows, seed=0)) == dev_rows


def test_candidates_are_carved_by_the_place_of_the_gold_one():
    decisions = [candidate_decision(index, gold=index % 2) for index in range(20)]
    dev = carve_dev(decisions, 4, seed=0)
    assert Counter(index % 2 for index in dev) == {0: 2, 1: 2}


@pytest.mark.parametrize(("n", "dev_rows"), [(1, None), (3, 3), (3, 4)])
def test_too_few_rows_are_an_error(n, dev_rows):
    with pytest.raises(DHRDError, match=f"'made' has {n} training rows, too few to keep"):
        carve_dev(rows([0] * n), dev_rows, seed=0)


# Passages


def test_rows_about_one_passage_stay_together():
    decisions = rows([0, 1] * 20)
    groups = [index // 4 for index in range(40)]
    for seed in range(5):
        drawn = carve_dev(decisions, 10, seed, groups=groups)
        assert len(drawn) == 12  # whole passages of four, until there are ten
        assert {index // 4 for index in drawn}.isdisjoint(
            {index // 4 for index in range(40) if index not in drawn}
        )
    assert carve_dev(decisions, 10, 0, groups=groups) == carve_dev(decisions, 10, 0, groups=groups)
    assert len({tuple(sorted(carve_dev(decisions, 10, s, groups=groups))) for s in range(5)}) > 1


def test_single_passage_cannot_be_divided():
    with pytest.raises(DHRDError, match="too few to keep 2 back"):
        carve_dev(rows([0, 1, 0, 1]), 2, 0, groups=["one"] * 4)


def test_passage_is_the_outermost_level_of_a_nested_index():
    multirc = [{"idx": {"paragraph": p, "question": q, "answer": 0}} for p, q in ((3, 1), (3, 2))]
    assert passages(multirc) == [3, 3]
    assert passages([{"idx": 1}, {"idx": 2}]) is None
    assert passages([{"text": "no idx"}]) is None


# Soft labels and controls


def test_soft_labels_are_read_and_count_as_data(load, write):
    plain = load("made_weather", rationales=[write(bare(0), bare(1))])
    soft = load("made_weather", rationales=[write(bare(0, label_probs=[0.8, 0.2]), bare(1))])
    assert plain.label_probs == {}
    assert soft.label_probs == {"made_weather/train/0": (0.8, 0.2)}
    assert plain.sha != soft.sha and plain.records_sha != soft.records_sha
    again = load("made_weather", rationales=[write(bare(0), bare(1))], seed=1)
    assert again.sha != plain.sha and again.records_sha == plain.records_sha


def test_corrected_label_is_other_data(load):
    data = load("made_weather")
    first = replace(data.train[0], gold=frozenset({1 - data.train[0].label}))
    assert replace(data, train=[first, *data.train[1:]]).sha != data.sha


@pytest.mark.parametrize(
    "probs", [[0.5], [0.5, 0.4], [1.5, -0.5], "0.5", [True, False], [0.2, 0.3, 0.5], {"no": 1}]
)
def test_soft_label_that_is_no_distribution_is_named(load, write, probs):
    with pytest.raises(DHRDError, match=r"r\.jsonl:1: label_probs .*2 choices \(no, yes\)"):
        load("made_weather", rationales=[write(bare(0, label_probs=probs))])


def test_control_spoils_training_rows_only(load):
    data = load("made_weather")
    spoilt = data.under_control("only-label", 0)
    taught = [d.id for d in data.train if d.id in data.rationales]
    assert taught and {spoilt.rationales[key] for key in taught} == {""}
    assert (spoilt.dev, spoilt.dev_docs) == (data.dev, data.dev_docs)
    assert spoilt.train == data.train
