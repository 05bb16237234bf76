"""`dhrd-teach` from its arguments to its exit code, on the embedded task `scenes`."""

from __future__ import annotations

import json

import pytest
from made_decisions import GOOD, LEAKING, ScriptedTeacher, label_decision, one_split, reply

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task
from teachers import cli
from teachers.cli import main, warn_of_inverted_gold


@pytest.fixture(scope="session")
def scenes():
    return load_decisions(load_task("scenes"), "train")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def source(here):
    """A file with rationales for the first four rows; the third one leaks."""
    rationales = [GOOD, GOOD, LEAKING, GOOD]
    lines = [
        {"task": "scenes", "split": "train", "index": i, "rationale": text}
        for i, text in enumerate(rationales)
    ]
    path = here / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_defaults_are_the_embedded_task_and_the_current_folder(here, source, scenes, capsys):
    assert main(["--teacher", "file:mine.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "3 of 600 rows have a rationale (3 new)" in out
    assert "rejected 1 × answer words in the explanation" in out
    assert "596 rows have no line in the file" in out
    assert "rationales.jsonl" in out and "rationales.rejected.jsonl" in out
    written = records(here / "rationales.jsonl")
    assert [r["id"] for r in written] == [f"scenes/train/{i}" for i in (0, 1, 3)]
    for record in written:
        decision = scenes.decisions[record["index"]]
        assert record["input_sha"] == decision.input_sha
        assert record["label_text"] == decision.label_text


def test_same_command_again_adds_nothing(here, source, capsys):
    arguments = ["--teacher", "file:mine.jsonl", "--limit", "2"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert "2 of 2 rows have a rationale (0 new)" in capsys.readouterr().out
    assert [r["index"] for r in records(here / "rationales.jsonl")] == [0, 1]
    assert main(["--teacher", "file:mine.jsonl"]) == 0
    assert [r["index"] for r in records(here / "rationales.jsonl")] == [0, 1, 3]


def test_own_records_can_be_imported_again(here, source):
    assert main(["--teacher", "file:mine.jsonl"]) == 0
    assert main(["--teacher", "file:rationales.jsonl", "--output", "copies/again.jsonl"]) == 0
    assert len(records(here / "copies" / "again.jsonl")) == 3


def test_no_row_kept_is_a_failure(here, source, capsys):
    source.write_text(source.read_text().splitlines()[2] + "\n")
    assert main(["--teacher", "file:mine.jsonl"]) == 1
    assert "0 of 600" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "robot:x"], "Unknown teacher 'robot:x'. Name it as one of: "),
        (["--teacher", "hf:"], "Unknown teacher 'hf:'"),
        (["--teacher", "file:none.jsonl"], "Cannot read rationales from none.jsonl"),
        (["--teacher", "file:mine.jsonl", "--task", ","], "--task is empty"),
        (["--teacher", "file:mine.jsonl", "--split", "test"], "has no test split"),
        (["--teacher", "file:mine.jsonl", "--base-url", "http://x"], "--base-url: of no use"),
        (["--teacher", "file:mine.jsonl", "--seed", "1"], "--seed: of no use"),
        (["--teacher", "file:mine.jsonl", "--max-attempts", "2"], "--max-attempts: of no use"),
        (["--teacher", "file:mine.jsonl", "--include-path", "nowhere"], "--include-path nowhere"),
        (["--teacher", "hf:./nowhere"], "./nowhere"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(here, source, capsys, arguments, message):
    assert main([*arguments, "--output", "out.jsonl"]) == 2
    err = capsys.readouterr().err
    shown = err[err.index("dhrd-teach: ") :]
    assert message in shown
    assert len(shown.splitlines()) < 6
    assert "Traceback" not in err
    assert not (here / "out.jsonl").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--teacher", "file:x", "--mode", "blind"],
        ["--teacher", "file:x", "--limit", "0"],
        ["--teacher", "file:x", "--limit", "many"],
        [],
    ],
)
def test_flags_that_do_not_work_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_interruption_keeps_the_rows_and_tells_how_to_go_on(here, monkeypatch, capsys):
    def script(request):
        if request.decision.index == 2:
            raise KeyboardInterrupt
        return reply(answer=request.decision.label_text)

    monkeypatch.setattr(cli, "make_teacher", lambda *_, **__: ScriptedTeacher(script))
    assert main(["--teacher", "hf:x", "--limit", "4"]) == 130
    assert "interrupted; ./rationales.jsonl keeps" in capsys.readouterr().err
    assert [r["index"] for r in records(here / "rationales.jsonl")] == [0, 1]
    teacher = ScriptedTeacher(lambda r: reply(answer=r.decision.label_text))
    monkeypatch.setattr(cli, "make_teacher", lambda *_, **__: teacher)
    assert main(["--teacher", "hf:x", "--limit", "4"]) == 0
    assert [index for index, _ in teacher.asked] == [2, 3]


def test_used_up_rows_are_told(here, monkeypatch, capsys):
    teacher = ScriptedTeacher(lambda r: reply(answer="no idea"))
    monkeypatch.setattr(cli, "make_teacher", lambda *_, **__: teacher)
    arguments = ["--teacher", "hf:x", "--limit", "2", "--max-attempts", "1"]
    assert main(arguments) == 1
    assert "rejected 2 × answer is not the gold one" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "2 rows had used up their attempts" in capsys.readouterr().out
    assert len(teacher.asked) == 2


def test_changed_settings_are_refused_and_new_keeps_the_old_file(here, source, capsys):
    assert main(["--teacher", "file:mine.jsonl"]) == 0
    source.rename(here / "renamed.jsonl")
    assert main(["--teacher", "file:renamed.jsonl"]) == 2
    assert "teacher.model: was 'mine.jsonl', now 'renamed.jsonl'" in capsys.readouterr().err
    assert main(["--teacher", "file:renamed.jsonl", "--new"]) == 0
    assert records(here / "rationales.1.jsonl")[0]["teacher"]["model"] == "mine.jsonl"
    assert records(here / "rationales.jsonl")[0]["teacher"]["model"] == "renamed.jsonl"


def test_inverted_multirc_is_warned_of_and_its_correction_is_not(capsys):
    inverted = label_decision(choices=("yes", "no"), task="multirc")
    warn_of_inverted_gold([one_split([inverted])])
    assert "rewards the opposite" in capsys.readouterr().err
    warn_of_inverted_gold([one_split([label_decision(choices=("no", "yes"), task="multirc")])])
    assert capsys.readouterr().err == ""
