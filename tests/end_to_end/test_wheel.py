"""The wheel as users get it: found by the stock harness, gone after `pip uninstall`."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.end_to_end


def test_stock_harness_finds_tasks_and_model(installation, tmp_path):
    listing = installation.run("lm_eval", "ls", "tasks", cwd=tmp_path)
    for task in ("scenes", "everyday", "cb_cot", "copa_cot"):
        row = next(line for line in listing.splitlines() if line.startswith(f"|{task} "))
        assert str(installation.site_packages / "dhrd_plugin" / "tasks") in row
    tasks = ("--tasks", "scenes,everyday", "--limit", "4")
    results = installation.run("lm_eval", "--model", "dummy", *tasks, cwd=tmp_path)
    assert "|scenes" in results and "|everyday" in results


def test_wheel_holds_packages_tasks_and_hook_only(installation):
    files = installation.files()
    assert "dhrd_autoload.pth" in files
    roots = {name.split("/")[0] for name in files}
    assert {root for root in roots if not root.startswith(("dhrd-", "_", "zz_"))} == {
        "dhrd_autoload.pth",
        "dhrd_plugin",
        "teachers",
        "distill",
    }
    assert "dhrd_plugin/tasks/scenes/data/train.jsonl" in files
    assert "dhrd_plugin/tasks/scenes/rationales.jsonl" in files
    assert "teachers/prompts.toml" in files
    assert not [name for name in files if name.endswith(".pth") and "/" in name]


def test_uninstall_leaves_no_trace(installation, tmp_path):
    # Use it first: the harness compiles the tasks' utils.py, which must go, too.
    installation.run(
        "lm_eval", "--model", "dummy", "--tasks", "scenes", "--limit", "1", cwd=tmp_path
    )
    installation.pip("uninstall", "--yes", "dhrd")
    assert installation.files() == ["zz_shared.pth"]
