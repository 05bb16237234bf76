"""`dhrd-teach audit` as a command: what it prints and writes, the filtered copy, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task
from teachers.audit.cli import main
from teachers.budget import Usage
from teachers.records import make_record, make_rejected

GOLDEN = Path(__file__).parent / "golden" / "audit_80.txt"


@pytest.fixture(scope="module")
def rows(made_tasks):
    """The 40 training rows of made_weather (choices no and yes, in turn)."""
    return load_decisions(load_task("made_weather", str(made_tasks)), "train").decisions


def record(row, *, both=None, alone=0.2, **changes):
    """A clean record of a row; with `both`, as verified by a judge."""
    i = row.index
    made = make_record(
        row,
        rationale=f"Cloud{i} hangs{i} over{i} roof{i}. Drop{i} hits{i} pane{i}.",
        origin="blind" if i % 3 else "hinted",
        attempts=1 + i % 2,
        checks={"answer": row.label_text},
        teacher={},
        usage=Usage(100, 50, 0.001),
    )
    if both is not None:
        probs = {"input": 0.3 + 0.4 * (i % 2), "rationale": alone, "both": both}
        made["judge"] = {
            "views": {
                view: {"probs": [p, 1 - p] if row.label == 0 else [1 - p, p], "method": "scored"}
                for view, p in probs.items()
            },
            "usage": {"prompt_tokens": 60, "completion_tokens": 3, "cost": None},
        }
    return made | changes


def write(path, lines):
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    path.write_bytes(b"".join(raw))
    return path


@pytest.fixture
def audit(made_tasks, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder of 80 columns; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments):
        code = main([*map(str, arguments), "--include-path", str(made_tasks)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def faulty(rows) -> list:
    """Records with a fault of each sort, and a template in six of them."""
    lines = [record(row, both=0.9, alone=0.7 if row.index % 4 == 0 else 0.3) for row in rows[:20]]
    lines += [record(row) for row in rows[20:30]]
    for i in range(20, 26):
        weather = rows[i].context.removesuffix(" Is it wet?")
        lines[i]["rationale"] = f"The text says: {weather} So that settles it for us."
    lines[3]["rationale"] = "That is correct. It pours."
    lines[7] |= {"checks": {"answer": rows[6].label_text}}
    lines[9]["index"] = 99
    lines[11]["label"] = 0
    lines[13]["rationale"] = lines[12]["rationale"]
    lines[15]["input_sha"] = "0" * 16
    lines[17]["rationale"] = "Short."
    return [*lines, record(rows[2]), b'{"schema": "a|b*']


def reject_some(path, rows) -> None:
    reasons = {30: ["leak"], 31: ["answer", "answer"], 32: ["failed"]}
    lines = [
        make_rejected(record(rows[i]), reason=reason, detail="", text="")
        for i, of_row in reasons.items()
        for reason in of_row
    ]
    write(path, [*lines, {"reason": "torn line", "text": "{"}, b"{"])


def test_golden_terminal_output(audit, rows, tmp_path):
    write(tmp_path / "faulty.jsonl", faulty(rows))
    reject_some(tmp_path / "faulty.rejected.jsonl", rows)
    flags = ("--output", "good.jsonl", "--min-sufficiency", "0.5", "--drop-leaking")
    code, out, err = audit("faulty.jsonl", *flags, "--drop-copies", "--markdown", "a.md")
    stripped = "\n".join(line.rstrip() for line in out.splitlines()) + "\n"
    assert stripped == GOLDEN.read_text(encoding="utf-8")
    assert (code, err) == (1, "")
    numbers = re.compile(r"\d+(?:\.\d+)?")
    shown = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert sorted(numbers.findall(out)) == sorted(numbers.findall(shown))
    assert r"a\|b\*" in shown
    for table in re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE):
        assert len({line.count(" | ") for line in table.splitlines()}) == 1


def test_json_holds_every_finding_and_figure(audit, rows, tmp_path):
    write(tmp_path / "faulty.jsonl", faulty(rows))
    audit("faulty.jsonl", "--json", "a.json")
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    found = [(finding["line"], finding["kind"]) for finding in content["findings"]]
    assert found == [
        (3, "repeated"),
        (4, "leak"),
        (8, "answer"),
        (10, "row"),
        (12, "label"),
        (14, "duplicate"),
        (16, "changed"),
        (18, "length"),
        *((line, "copy") for line in range(21, 27)),
        (32, "json"),
    ]
    assert (content["errors"], content["warnings"]) == (7, 8)
    assert content["templates"] == [
        {"template": "the text says … so that settles it for us", "rows": 6}
    ]
    (split,) = content["splits"]
    assert split["name"] == "made_weather/train"
    assert split["verified"]["rows"] == 15
    assert split["verified"]["las"]["leaking"]["rows"] == 5
    assert content["dropped"] is None


def test_honest_rationales_of_a_shipped_task_pass_as_they_are(audit, tmp_path):
    lines = (REPO / "tasks/everyday/rationales.jsonl").read_bytes().splitlines(keepends=True)
    write(tmp_path / "honest.jsonl", lines)
    code, out, _ = audit("honest.jsonl", "--json", "a.json", "--output", "same.jsonl")
    assert code == 0
    assert "1,200 rows without input_sha" in " ".join(out.split())
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["findings"]
    assert {finding["kind"] for finding in found} == {"length"}  # some are of one sentence
    assert (tmp_path / "same.jsonl").read_bytes() == (tmp_path / "honest.jsonl").read_bytes()


def test_filtered_copy_keeps_lines_byte_for_byte(audit, rows, tmp_path):
    odd = json.dumps(record(rows[0]), separators=(" , ", " :  ")).encode() + b"\r\n"
    kept = [b"\xef\xbb\xbf" + odd, record(rows[1]), json.dumps(record(rows[4])).encode()]
    write(tmp_path / "r.jsonl", [kept[0], b"\n", kept[1], b"{}\n", kept[2]])
    code, out, _ = audit("r.jsonl", "--output", "sub/copy.jsonl")
    assert code == 1
    assert (tmp_path / "sub/copy.jsonl").read_bytes() == write(tmp_path / "x", kept).read_bytes()
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["copy.jsonl"]
    assert re.search(r"kept +3\n *missing or mistyped field +1\n", out)
    code, _, _ = audit("sub/copy.jsonl")
    assert code == 0


def test_copy_that_cannot_be_written_leaves_the_old_one(audit, rows, tmp_path, monkeypatch):
    write(tmp_path / "r.jsonl", [record(rows[0])])
    write(tmp_path / "copy.jsonl", [b"old\n"])
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    code, _, err = audit("r.jsonl", "--output", "copy.jsonl")
    assert (code, (tmp_path / "copy.jsonl").read_bytes()) == (2, b"old\n")
    assert "Cannot write copy.jsonl: No space left" in err


def test_a_link_stays_and_what_it_points_to_is_written(audit, rows, tmp_path):
    write(tmp_path / "r.jsonl", [record(rows[0])])
    write(tmp_path / "old.json", [b"{}"]).chmod(0o640)
    (tmp_path / "a.json").symlink_to("old.json")
    assert audit("r.jsonl", "--json", "a.json")[0] == 0
    assert (tmp_path / "a.json").is_symlink()
    assert json.loads((tmp_path / "old.json").read_text())["lines"] == 1
    assert (tmp_path / "old.json").stat().st_mode & 0o777 == 0o640


def test_a_rejected_file_edited_by_hand_is_counted_as_far_as_it_is_readable(audit, rows, tmp_path):
    write(tmp_path / "r.jsonl", [record(rows[0])])
    whole = make_rejected(record(rows[1]), reason="leak", detail="", text="")
    odd = [b"[1]\n", {"task": "made_weather"}, {"usage": "none"}, {"usage": {"estimated": "no"}}]
    write(tmp_path / "r.rejected.jsonl", [whole, *odd])
    audit("r.jsonl", "--json", "a.json")
    everything = json.loads((tmp_path / "a.json").read_text())["all"]
    assert everything["rejected"] == {"unreadable": 4, "leak": 1}
    assert everything["rejected_usage"]["prompt_tokens"] == 100


def test_one_endless_text_does_not_make_an_endless_table(audit, rows, tmp_path):
    write(
        tmp_path / "r.jsonl", [record(rows[0]), record(rows[1], rationale="la " * 9999 + ". La.")]
    )
    _, out, _ = audit("r.jsonl")
    assert len(out.splitlines()) < 80
    assert re.search(r"^from 200 +1 ", out, re.MULTILINE)


def test_warnings_alone_exit_with_0(audit, rows, tmp_path):
    write(tmp_path / "r.jsonl", [record(rows[0], rationale="Short.")])
    code, out, _ = audit("r.jsonl")
    assert code == 0
    assert "0 errors, 1 warning" in out


def test_bare_lines_take_the_split_of_the_flag(audit, tmp_path):
    line = {"task": "made_weather", "index": 39, "rationale": "Sand here burns. Feet hop."}
    write(tmp_path / "r.jsonl", [line])
    assert audit("r.jsonl")[0] == 0
    code, out, _ = audit("r.jsonl", "--split", "validation")
    assert code == 1
    assert "made_weather/validation/39" in "".join(out.split())


def test_a_split_that_cannot_be_loaded_is_a_finding_and_the_rest_is_audited(audit, rows, tmp_path):
    write(tmp_path / "r.jsonl", [record(rows[0]), record(rows[1], task="made_untaught")])
    code, out, _ = audit("r.jsonl")
    assert code == 1
    assert "1 row kept" in out
    assert "has no train split" in " ".join(out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["missing.jsonl"], "Cannot read rationales from missing.jsonl"),
        (["."], "Cannot read rationales from .: Is a directory"),
        (["empty.jsonl"], "empty.jsonl is empty"),
        (["elsewhere.jsonl"], "'made_untaught' has no train split"),
        (["r.jsonl", "--drop-leaking"], "--drop-leaking: chooses what a filtered copy leaves out"),
        (["r.jsonl", "--output", "r.jsonl"], "r.jsonl is the file to be audited"),
        (["r.jsonl", "--output", "link.jsonl"], "link.jsonl is the file to be audited"),
        (["r.jsonl", "--json", "a.txt", "--markdown", "./a.txt"], "need a file each"),
        (["r.jsonl", "--json", "pipe"], "Cannot write pipe: no regular file"),
        (["r.jsonl", "--markdown", "."], "Cannot write .: no regular file"),
        (["r.jsonl", "--json", "./r.jsonl"], "is the file to be audited"),
        (["r.jsonl", "--output", "c.jsonl", "--min-sufficiency", "0.5"], "with --verify"),
        (["r.jsonl", "--markdown", "r.jsonl/a.md"], "Cannot write r.jsonl"),
    ],
)
def test_wrong_input_exits_with_2(audit, rows, tmp_path, flags, message):
    line = write(tmp_path / "r.jsonl", [record(rows[0])]).read_bytes()
    (tmp_path / "link.jsonl").symlink_to("r.jsonl")
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "empty.jsonl", [b"\n"])
    write(tmp_path / "elsewhere.jsonl", [record(rows[0], task="made_untaught")])
    code, _, err = audit(*flags)
    assert code == 2
    assert err.startswith("dhrd-teach audit: ")
    assert message in err
    assert (tmp_path / "r.jsonl").read_bytes() == line
    assert not (tmp_path / "c.jsonl").exists()


def test_sufficiency_is_a_probability(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["r.jsonl", "--output", "c.jsonl", "--min-sufficiency", "80"])
    assert stop.value.code == 2
    assert "80 is not between 0 and 1" in capsys.readouterr().err


def test_what_is_not_merged_yet_is_mentioned(audit, rows, tmp_path):
    write(tmp_path / "r.jsonl", [record(rows[0])])
    for name in ("r.annotations.jsonl", "r.rank1.jsonl"):
        write(tmp_path / name, [b"{}\n"])
    said = " ".join(audit("r.jsonl")[1].split())
    assert "r.annotations.jsonl is not counted" in said
    assert "r.rank1.jsonl is not counted" in said


def test_inverted_multirc_is_mentioned(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Rain falls.", "label": 0}\n')
    (tmp_path / "multirc.yaml").write_text(f"""
task: multirc
dataset_path: json
dataset_kwargs: {{data_files: {{train: {rows}, validation: {rows}}}}}
output_type: multiple_choice
training_split: train
validation_split: validation
doc_to_text: "{{{{text}}}} Is it wet?"
doc_to_choice: ["yes", "no"]
doc_to_target: label
metric_list: [{{metric: acc}}]
""")
    line = {"task": "multirc", "index": 0, "rationale": "Rain is water. Water is wet."}
    path = write(tmp_path / "r.jsonl", [line])
    assert main([str(path), "--include-path", str(tmp_path)]) == 0
    assert "'multirc' rewards 'no' for a right answer" in " ".join(capsys.readouterr().out.split())


def test_help_loads_neither_torch_nor_lm_eval():
    code = (
        "import sys; from teachers.audit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'lm_eval', 'transformers', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
