"""Who may import whom, what `--help` loads, and what the project file promises."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import REPO
from packaging.requirements import Requirement

import dhrd_plugin

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
MAY_IMPORT = {
    "dhrd_plugin": {"dhrd_plugin"},
    "teachers": {"teachers", "dhrd_plugin"},
    "distill": {"distill", "teachers.records", "dhrd_plugin"},
}
OURS = (*MAY_IMPORT, "tests", "tasks")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts)


def imports(path: Path, inside_functions: bool = True) -> Iterator[str]:
    """Absolute names of our modules that a file imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if inside_functions else tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = (REPO / (node.module or "").replace(".", "/")).is_dir()
            names = [f"{node.module}.{a.name}" if module else str(node.module) for a in node.names]
        yield from (name for name in names if name.split(".")[0] in OURS)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    allowed = MAY_IMPORT[package]
    for path in (REPO / package).rglob("*.py"):
        for name in imports(path):
            fits = any(name == root or name.startswith(f"{root}.") for root in allowed)
            assert fits, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_modules_of_a_package_form_no_circle_under_its_command_line(package):
    files = list((REPO / package).rglob("*.py"))
    graph = {module_name(path): set(imports(path, inside_functions=False)) for path in files}
    TopologicalSorter(graph).prepare()  # raises CycleError
    assert [path for path in files if f"{package}.cli" in imports(path)] == []


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_help_loads_neither_torch_nor_the_harness(command, tmp_path):
    module, function = PROJECT["scripts"][command].split(":")
    code = f"""
import sys, json
from {module} import {function}
try:
    code = {function}(["--help"])
except SystemExit as stop:
    code = stop.code
heavy = sorted({{"torch", "lm_eval", "transformers", "datasets"}} & set(sys.modules))
print(json.dumps([code or 0, heavy]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPO)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert command in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_version_is_the_same_everywhere():
    assert PROJECT["version"] == dhrd_plugin.__version__


def test_constraints_pin_what_is_required_and_lie_within_its_ranges():
    pins = {}
    for line in (REPO / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins[requirement.name] = requirement.specifier
    extras = PROJECT["optional-dependencies"].values()
    for line in [*PROJECT["dependencies"], *(item for extra in extras for item in extra)]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:  # extras made of other extras
            continue
        assert requirement.name in pins, f"{requirement.name} is not pinned"
        pinned = str(pins[requirement.name]).removeprefix("==").replace("*", "0")
        assert requirement.specifier.contains(pinned), f"{line}, pinned to {pinned}"


def test_harness_is_one_that_the_hook_was_written_for():
    requirement = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "lm-eval")
    assert requirement.specifier.contains(version("lm_eval"))
