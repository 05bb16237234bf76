"""Which student `--model dhrd` answers from, and what of it cannot be changed."""

from __future__ import annotations

import shutil

import pytest

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.lm import DHRDLM, find_student


def test_default_student_is_named_by_the_environment_or_lies_here(student, tmp_path, monkeypatch):
    monkeypatch.delenv("DHRD_STUDENT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DHRDError, match=r"No student named[\s\S]*dhrd-teach --teacher hf:smollm2 && dhrd-distill"
    ):
        find_student(None)
    shutil.copytree(student, tmp_path / "dhrd-student")
    assert find_student(None).resolve() == tmp_path / "dhrd-student"
    monkeypatch.setenv("DHRD_STUDENT", str(student))
    assert find_student(None) == student
    assert find_student("named").name == "named"
    assert DHRDLM().student == read_student_config(student)


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_named_student_that_is_not_there_is_an_error(tmp_path, monkeypatch, student, named):
    missing = str(tmp_path / "missing")
    monkeypatch.chdir(student.parent)
    monkeypatch.setenv("DHRD_STUDENT", missing if named == "environment" else str(student))
    with pytest.raises(DHRDError, match=rf"No DHRD student in {missing}"):
        DHRDLM(missing if named == "argument" else None)


@pytest.mark.parametrize(
    "argument", ["dtype", "peft", "tokenizer", "add_bos_token", "revision", "backend"]
)
def test_what_the_student_determines_cannot_be_given(student, argument):
    with pytest.raises(DHRDError, match=f"--model_args {argument}=.*determines it"):
        DHRDLM(str(student), **{argument: "other"})
