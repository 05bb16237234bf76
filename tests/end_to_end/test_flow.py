"""The whole flow through the installed wheel and the real commands, on a tiny random backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_super_glue import write_super_glue

from .conftest import REPO, run

pytestmark = pytest.mark.end_to_end


def result_file(folder: Path) -> dict:
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text())


def test_teach_distil_score_report(installation, tiny_backbone, tmp_path):
    command = installation.run
    reference = str(REPO / "tasks" / "scenes" / "rationales.jsonl")
    taught = command("dhrd-teach", "--teacher", f"file:{reference}", "--limit", "400", cwd=tmp_path)
    assert "400 of 400 rows have a rationale (400 new)" in taught
    again = command("dhrd-teach", "--teacher", f"file:{reference}", "--limit", "408", cwd=tmp_path)
    assert "408 of 408 rows have a rationale (8 new)" in again
    records = [json.loads(line) for line in (tmp_path / "rationales.jsonl").open()]
    assert [record["index"] for record in records] == list(range(408))

    small = ("--backbone", tiny_backbone, "--max-steps", "4", "--batch-size", "4")
    command("dhrd-distill", *small, cwd=tmp_path)
    command("dhrd-distill", *small, "--alpha", "0", "--output", "pooled", cwd=tmp_path)
    steps = [json.loads(line) for line in (tmp_path / "dhrd-student/train_log.jsonl").open()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert any(step["loss_reason"] > 0 for step in steps)

    score = ("--tasks", "scenes", "--limit", "30", "--log_samples", "--output_path")
    command("lm_eval", "--model", "dhrd", *score, "results/dhrd", cwd=tmp_path)  # ./dhrd-student
    named = ("--model", "dhrd", "--model_args", "pretrained=pooled")
    command("lm_eval", *named, *score, "results/pooled", cwd=tmp_path)
    zero_shot = ("--model", "hf", "--model_args", f"pretrained={tiny_backbone}")
    command("lm_eval", *zero_shot, *score, "results/zero-shot", cwd=tmp_path)

    student = json.loads((tmp_path / "dhrd-student" / "dhrd.json").read_text())
    result = result_file(tmp_path / "results" / "dhrd")
    assert result["config"]["dhrd"]["fingerprint"] == student["fingerprint"]
    (samples,) = (tmp_path / "results" / "dhrd").rglob("samples_scenes_*.jsonl")
    right = [
        max(range(3), key=[float(resp[0][0]) for resp in sample["resps"]].__getitem__)
        == int(sample["target"])
        for sample in map(json.loads, samples.open())
    ]
    assert len(right) == 30
    assert result["results"]["scenes"]["acc,none"] == pytest.approx(sum(right) / 30)

    report = command(
        "dhrd-report", "results", "--baseline", "pooled", "--markdown", "table.md", cwd=tmp_path
    )
    for row in ("pooled", "DHRD", "hf"):
        assert row in report
    assert "scenes" in (tmp_path / "table.md").read_text()


def test_soft_labels_of_a_local_judge_are_audited_and_learnt(installation, tiny_backbone, tmp_path):
    command = installation.run
    reference = str(REPO / "tasks" / "scenes" / "rationales.jsonl")
    judge = ("--judge", f"hf:{tiny_backbone}", "--soft-labels", "--verify", "--limit", "100")
    taught = command("dhrd-teach", "--teacher", f"file:{reference}", *judge, cwd=tmp_path)
    assert "300 questions answered" in taught
    records = [json.loads(line) for line in (tmp_path / "rationales.jsonl").open()]
    for record in records:
        assert sum(record["label_probs"]) == pytest.approx(1)
        assert record["judge"]["views"]["both"]["method"] == "scored"
    audit = command("dhrd-teach", "audit", "rationales.jsonl", "--json", "a.json", cwd=tmp_path)
    assert "LAS" in audit and "0 errors" in audit
    assert (tmp_path / "a.json").exists()
    small = ("--backbone", tiny_backbone, "--max-steps", "2", "--batch-size", "16")
    command("dhrd-distill", *small, "--kd-temperature", "2", "--kd-target", "label", cwd=tmp_path)
    steps = [json.loads(line) for line in (tmp_path / "dhrd-student/train_log.jsonl").open()]
    assert any(step["loss_kd_label"] > 0 for step in steps)


def test_two_formulations_and_decoding_in_one_student(installation, tiny_backbone, tmp_path):
    """A joint student on labels and candidates answers both, and decodes with its other head."""
    command = installation.run
    write_super_glue(tmp_path)
    lines = [
        {"task": task, "split": "train", "index": 0, "rationale": "It follows from what is said."}
        for task in ("cb", "copa")
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    small = ("--backbone", tiny_backbone, "--max-steps", "2", "--dev-rows", "1")
    command("dhrd-distill", *small, "--task", "cb,copa", "--rationales", "r.jsonl", cwd=tmp_path)
    tasks = ("--tasks", "cb,copa,cb_cot,copa_cot", "--gen_kwargs", "max_gen_toks=8")
    command("lm_eval", "--model", "dhrd", *tasks, "--output_path", "out", cwd=tmp_path)
    scored = result_file(tmp_path / "out")["results"]
    assert {"cb", "copa", "cb_cot", "copa_cot"} <= scored.keys()
    assert "f1,none" in scored["cb"] and "exact_match,final-answer" in scored["cb_cot"]


def test_module_door_without_the_hook(installation, tmp_path):
    """`python -m dhrd_plugin` is the same command line where `.pth` files are not read."""
    arguments = ("--model", "dummy", "--tasks", "scenes", "--limit", "2")
    started = ("-S", "-c", _RUN_MODULE, str(installation.site_packages), *arguments)
    assert "|scenes" in run(str(installation.python), *started, cwd=tmp_path)


# -S reads no `.pth`, so the folders that the environment's own would have added are added by hand.
_RUN_MODULE = """
import runpy, sys
site = sys.argv.pop(1)
sys.path += [site, *open(site + "/zz_shared.pth").read().split()]
runpy.run_module("dhrd_plugin", run_name="__main__")
"""
