"""`dhrd-teach` from its arguments to its exit code, on the embedded task `scenes`."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest
from made_decisions import GOOD, LEAKING, ScriptedTeacher, label_decision, one_split, reply

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task
from teachers import run
from teachers.base import Prediction, Reply
from teachers.cli import main
from teachers.run import warn_of_inverted_gold


@pytest.fixture(scope="session")
def scenes():
    return load_decisions(load_task("scenes"), "train")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def use(monkeypatch):
    """Puts a scripted teacher (and judge) in the place of the named ones."""

    def put(script, predict=None):
        teacher = ScriptedTeacher(script, predict=predict)
        monkeypatch.setattr(run, "make_teachers", lambda *_, **__: [teacher, teacher])
        return teacher

    return put


def right(request):
    return reply(answer=request.decision.label_text)


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
        (["--teacher", "file:mine.jsonl", "--mode", "blind"], "--mode: of no use"),
        (["--teacher", "file:mine.jsonl", "--examples", "mine.jsonl"], "--examples: of no use"),
        (["--teacher", "file:mine.jsonl", "--verify"], "Name one with --judge"),
        (["--teacher", "file:mine.jsonl", "--limit", "0"], "--limit 0"),
        (["--teacher", "hf:x", "--prompts", "none.toml"], "Cannot read prompts"),
        (["--teacher", "hf:x", "--rpm", "5"], "--rpm: of no use with 'hf:x'"),
        (["--teacher", "hf:x", "--max-tokens", "5"], "--max-cost/--max-tokens: of no use"),
        (["--teacher", "openai:x", "--batch-tokens", "5"], "--batch-tokens: of no use"),
        (
            ["--teacher", "file:mine.jsonl", "--verify", "--judge", "robot:x"],
            "Unknown teacher 'robot:x'",
        ),
        (["--teacher", "hf:./nowhere"], "./nowhere"),
        (["--teacher", "file:mine.jsonl", "--prompts", "mine.jsonl"], "--prompts: of no use"),
        (["--teacher", "hf:x", "--dry-run", "--rpm", "5"], "--rpm: of no use with 'hf:x'"),
        (["--teacher", "file:none.jsonl", "--dry-run"], "Cannot read rationales"),
        (["--teacher", "file:mine.jsonl", "--dry-run", "--verify"], "Name one with --judge"),
        (
            ["--teacher", "hf:x", "--examples", "mine.jsonl", "--split", "validation"],
            "no example for scenes/validation",
        ),
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


@pytest.mark.parametrize("output", ["", "/", "."])
def test_output_that_is_no_file_is_refused(source, capsys, output):
    assert main(["--teacher", "file:mine.jsonl", "--output", output]) == 2
    assert "need a file whose name ends in .jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--teacher", "file:x", "--mode", "shown"],
        ["--teacher", "file:x", "--limit", "many"],
        ["--teacher", "file:x", "--max-cos", "1"],
        [],
    ],
)
def test_flags_that_do_not_work_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_interruption_keeps_the_rows_and_tells_how_to_go_on(here, use, capsys):
    def script(request):
        if request.decision.index == 2:
            raise KeyboardInterrupt
        return right(request)

    use(script)
    assert main(["--teacher", "hf:x", "--limit", "4"]) == 130
    assert "interrupted; rationales.jsonl keeps" in capsys.readouterr().err
    assert [r["index"] for r in records(here / "rationales.jsonl")] == [0, 1]
    teacher = use(right)
    assert main(["--teacher", "hf:x", "--limit", "4"]) == 0
    assert [index for index, *_ in teacher.asked] == [2, 3]


def test_first_signal_finishes_what_is_being_worked_on(here, use, capsys):
    def script(request):
        if request.decision.index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return right(request)

    use(script, predict=lambda question: Prediction((1.0, 0.0, 0.0), "scored"))
    assert main(["--teacher", "hf:x", "--limit", "4", "--verify"]) == 130
    captured = capsys.readouterr()
    assert "finishing what is being worked on" in captured.err
    assert "The same command resumes" in captured.err
    written = records(here / "rationales.jsonl")
    assert [r["index"] for r in written] == [0, 1, 2]
    assert all(r["judge"] is None for r in written)  # the second pass was not begun


def test_second_pass_fills_soft_labels_and_verification(here, use, capsys):
    teacher = use(right, predict=lambda question: Prediction((0.5, 0.25, 0.25), "scored"))
    arguments = ["--teacher", "hf:x", "--limit", "2"]
    assert main([*arguments, "--soft-labels"]) == 0
    assert "hf:x: 2 questions answered" in capsys.readouterr().out
    assert [r["label_probs"] for r in records(here / "rationales.jsonl")] == [[0.5, 0.25, 0.25]] * 2
    assert main([*arguments, "--soft-labels", "--verify"]) == 0
    assert "hf:x: 4 questions answered" in capsys.readouterr().out
    for record in records(here / "rationales.jsonl"):
        gold = [0.5, 0.25, 0.25][record["label"]]
        assert (record["checks"]["sufficiency"], record["checks"]["leakage"]) == (gold, gold)
    assert len(teacher.asked) == 2


def test_questions_that_failed_are_told_with_the_reason(here, use, capsys):
    def predict(question):
        known = question.decision.index == 0
        return Prediction((1.0, 0.0, 0.0), "scored") if known else Prediction(None, None, "503")

    use(right, predict=predict)
    assert main(["--teacher", "hf:x", "--limit", "3", "--soft-labels"]) == 0
    out = capsys.readouterr().out
    assert "2 questions failed; the last: 503\n  The same command asks them again." in out
    assert main(["--teacher", "hf:x", "--limit", "3", "--soft-labels"]) == 1  # not one answered


def test_requests_that_failed_are_told_with_the_reason(use, capsys):
    use(lambda request: Reply("", None, "hinted", failure="503"))
    assert main(["--teacher", "hf:x", "--limit", "2"]) == 1
    assert "rejected 2 × request failed; the last: 503" in capsys.readouterr().out


def test_another_judge_is_refused_before_anything_is_asked(use, capsys):
    teacher = use(right, predict=lambda question: Prediction((1.0, 0.0, 0.0), "scored"))
    assert main(["--teacher", "hf:x", "--limit", "1", "--verify", "--votes", "2"]) == 0
    assert main(["--teacher", "hf:x", "--limit", "2", "--verify", "--votes", "3"]) == 2
    assert "votes: was 2, now 3" in capsys.readouterr().err
    assert len(teacher.asked) == 1


def test_ladder_asks_blind_before_it_shows_the_gold_answer(here, use):
    def script(request):
        blind = request.prompt.origin == "blind"
        known = not blind or request.decision.index == 0
        said = reply(answer=request.decision.label_text if known else "no idea")
        return replace(said, origin=request.prompt.origin)

    use(script)
    arguments = ["--teacher", "hf:x", "--limit", "2", "--mode", "ladder", "--max-attempts", "2"]
    assert main(arguments) == 0
    written = records(here / "rationales.jsonl")
    assert [(r["origin"], r["attempts"]) for r in written] == [("blind", 1), ("hinted", 3)]


def test_used_up_rows_are_told(use, capsys):
    teacher = use(lambda r: reply(answer="no idea"))
    arguments = ["--teacher", "hf:x", "--limit", "2", "--max-attempts", "1"]
    assert main(arguments) == 1
    assert "rejected 2 × answer is not the gold one" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "2 rows had used up their attempts" in capsys.readouterr().out
    assert len(teacher.asked) == 2


def test_examples_and_own_prompts_reach_the_teacher(here, source, use):
    (here / "mine.toml").write_text(
        '[hinted]\ntemplate = "MINE {question} {gold} [END OF REASONING] {answer_lines}"\n'
    )
    chats = []

    def script(request):
        chats.append(request.messages)
        return right(request)

    use(script)
    arguments = ["--teacher", "hf:x", "--limit", "1", "--examples", "mine.jsonl"]
    assert main([*arguments, "--prompts", "mine.toml"]) == 0
    (chat,) = chats
    assert len(chat) == 7  # row 0 is one of the four examples, and not shown to itself
    assert all(m["content"].startswith("MINE") for m in chat if m["role"] == "user")
    assert chat[1]["content"].startswith(GOOD)


def test_dry_run_asks_and_writes_nothing(here, source, use, capsys):
    teacher = use(right)
    arguments = ["--teacher", "openai:x", "--limit", "3", "--dry-run", "--verify", "--votes", "2"]
    assert main([*arguments, "--price-in", "1", "--price-out", "2"]) == 0
    shown = capsys.readouterr().out
    assert "rows to explain:   3" in shown and "questions to ask:  9" in shown
    assert "requests:          21" in shown
    assert "Right answer:" in shown and "Nothing was sent." in shown
    assert teacher.asked == []
    assert [path.name for path in here.iterdir()] == ["mine.jsonl"]
    assert main(["--teacher", "openai:x", "--limit", "2"]) == 0
    capsys.readouterr()
    assert main(["--teacher", "openai:x", "--limit", "3", "--dry-run"]) == 0
    assert "rows to explain:   1" in capsys.readouterr().out


def test_dry_run_counts_what_is_left(here, source, use, capsys):
    arguments = ["--teacher", "file:mine.jsonl", "--judge", "hf:x", "--verify"]
    assert main([*arguments, "--dry-run"]) == 0  # four of the 600 rows have a line
    shown = capsys.readouterr().out
    assert "rows to explain:   4" in shown and "questions to ask:  12" in shown
    use(right, predict=lambda question: Prediction((1.0, 0.0, 0.0), "scored"))
    assert main(["--teacher", "hf:x", "--limit", "2", "--soft-labels"]) == 0
    capsys.readouterr()
    assert main(["--teacher", "hf:x", "--limit", "2", "--verify", "--dry-run"]) == 0
    assert "questions to ask:  4" in capsys.readouterr().out


def test_dry_run_needs_no_key(monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["--teacher", "openai:x", "--limit", "3", "--dry-run"]) == 0


def test_json_log_is_one_object_per_line(source, capsys):
    assert main(["--teacher", "file:mine.jsonl", "--log-json"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) | {"seconds": 0} == json.loads(line) | {"seconds": 0, "kept": 3}


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
