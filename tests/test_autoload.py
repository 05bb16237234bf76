"""The start-up hook, in fresh interpreters: import order is what it is about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import REPO
from made_super_glue import write_super_glue


def run_python(*arguments: str, cwd: Path, path: Path = REPO, **env: str):
    """Run a fresh interpreter in which no installed `.pth` has put the hook in place already."""
    settings = {**os.environ, "DHRD_NO_AUTOLOAD": "1", "PYTHONPATH": str(path), **env}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=settings, capture_output=True, text=True
    )


def evaluate(code: str, cwd: Path, **options):
    """The JSON value that `code` leaves in `result`."""
    done = run_python("-c", code + "\nimport json; print(json.dumps(result))", cwd=cwd, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_hook_imports_nothing_but_itself(tmp_path):
    code = """
import sys
for name in ("dhrd_plugin", "dhrd_plugin.autoload"):  # an installed .pth has imported them
    sys.modules.pop(name, None)
before = set(sys.modules)
from dhrd_plugin import autoload
autoload.install()
result = sorted(set(sys.modules) - before)
"""
    assert evaluate(code, tmp_path) == ["dhrd_plugin", "dhrd_plugin.autoload"]


def test_variable_switches_the_hook_off(tmp_path):
    code = """
import sys
from dhrd_plugin import autoload
autoload.start()
autoload.start()
result = sys.meta_path.count(autoload.HarnessFinder)
"""
    assert evaluate(code, tmp_path) == 0
    assert evaluate(code, tmp_path, DHRD_NO_AUTOLOAD="0") == 1
    assert evaluate(code, tmp_path, DHRD_NO_AUTOLOAD="") == 1


REGISTERED = """
import inspect
import lm_eval.models
from lm_eval.api.registry import model_registry
result = {
    "dhrd": str(model_registry._objs.get("dhrd")),
    "missing": [name for name in lm_eval.models.MODEL_MAPPING if name not in model_registry],
    "source": "MODEL_MAPPING" in inspect.getsource(lm_eval.models),
    "left_on_loader": sorted(vars(lm_eval.models.__spec__.loader)),
}
"""


def test_model_joins_the_built_in_ones(tmp_path):
    without = evaluate(REGISTERED, tmp_path)
    hooked = evaluate("from dhrd_plugin import autoload; autoload.install()" + REGISTERED, tmp_path)
    assert without["dhrd"] == "None"
    assert hooked == {**without, "dhrd": "dhrd_plugin.lm:DHRDLM"}
    assert hooked["missing"] == [] and hooked["source"]


def test_hook_catches_up_on_a_harness_already_imported(tmp_path):
    code = f"{REGISTERED}from dhrd_plugin import autoload; autoload.install()\n" + REGISTERED
    assert evaluate(code, tmp_path)["dhrd"] == "dhrd_plugin.lm:DHRDLM"


def test_name_registered_by_somebody_else_is_left_alone(tmp_path):
    code = f"""
from lm_eval.api.registry import model_registry
model_registry.register("dhrd", target="elsewhere:DHRDLM")
from dhrd_plugin import autoload
autoload.install()
{REGISTERED}"""
    assert evaluate(code, tmp_path)["dhrd"] == "elsewhere:DHRDLM"


def test_shipped_folders_come_right_after_the_harness_own(tmp_path):
    code = """
from pathlib import Path
from lm_eval.tasks import _index
_index.TaskIndex.build = staticmethod(lambda paths, **_: [str(path) for path in paths])
from dhrd_plugin import autoload
from dhrd_plugin.harness import task_folders
autoload.install()
own, user, shipped = Path(_index.__file__).parent, Path("user"), task_folders()
build = _index.TaskIndex().build
result = {
    "defaults and user": build([own, user]) == [str(p) for p in (own, *shipped, user)],
    "no defaults": build([user]) == ["user"],
    "already there": build([own, *shipped, user]) == [str(p) for p in (own, *shipped, user)],
    "shipped": [path.name for path in shipped],
}
"""
    result = evaluate(code, tmp_path)
    assert {"scenes", "everyday", "super_glue_cot"} <= set(result.pop("shipped"))
    assert all(result.values()), result


def test_task_manager_finds_ours_and_prefers_the_users(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.yaml").write_text("task: scenes\noutput_type: multiple_choice\n")
    code = """
from dhrd_plugin import autoload
autoload.install()
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path="mine")
bare = TaskManager(include_path="mine", include_defaults=False)
result = {
    "scenes": manager.task_index["scenes"].yaml_path.name,
    "everyday": manager.task_index["everyday"].yaml_path.name,
    "tag": sorted(manager.task_index["super-glue-lm-eval-v1"].tags),
    "bare": bare.all_tasks,
}
"""
    assert evaluate(code, tmp_path) == {
        "scenes": "mine.yaml",
        "everyday": "everyday.yaml",
        "tag": ["boolq", "cb", "copa", "multirc", "record", "sglue_rte", "wic", "wsc"],
        "bare": ["scenes"],
    }


STOCK_SCORES = """
import lm_eval
from lm_eval.tasks import TaskManager
manager = TaskManager()
paths = {name: str(entry.yaml_path) for name, entry in manager.task_index.items()}
settings = {"pretrained": BACKBONE, "device": "cpu", "dtype": "float32"}
scores = lm_eval.simple_evaluate(
    "hf", model_args=settings, tasks=["cb", "copa"], task_manager=manager, bootstrap_iters=10
)
keep = ("doc_hash", "arguments", "filtered_resps", "acc")
samples = {t: [{k: s[k] for k in keep} for s in lines] for t, lines in scores["samples"].items()}
result = [paths, scores["results"], scores["versions"], samples]
"""


def test_built_in_model_and_tasks_are_the_same_with_and_without_the_hook(tmp_path, tiny_backbone):
    write_super_glue(tmp_path)
    code = f"BACKBONE = {tiny_backbone!r}\n" + STOCK_SCORES
    paths, *scores = evaluate(code, tmp_path)
    hook = "from dhrd_plugin import autoload; autoload.install()\n"
    paths_with_hook, *scores_with_hook = evaluate(hook + code, tmp_path)
    assert scores_with_hook == scores
    assert set(scores[0]) == {"cb", "copa"} and len(scores[2]["cb"]) > 1
    changed = {name for name, path in paths.items() if paths_with_hook[name] != path}
    assert changed <= {"record"}  # the drop-in, where the harness's own cannot load
    assert {"scenes", "cb_cot"} <= set(paths_with_hook) - set(paths)


def start_with_pth(folder: Path) -> subprocess.CompletedProcess:
    """Start Python with `folder` as its only site folder (-S: whatever else is installed)."""
    shutil.copy(REPO / "dhrd_plugin" / "autoload.pth", folder / "dhrd_autoload.pth")
    code = f"import site; site.addsitedir({str(folder)!r}); print('started')"
    return run_python("-S", "-c", code, cwd=folder, path=folder, DHRD_NO_AUTOLOAD="")


def test_python_starts_without_the_package(tmp_path):
    done = start_with_pth(tmp_path)
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_python_starts_with_a_broken_package(tmp_path):
    (tmp_path / "dhrd_plugin").mkdir()
    (tmp_path / "dhrd_plugin" / "autoload.py").write_text("def start(:\n")
    done = start_with_pth(tmp_path)
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_pth_line_starts_the_hook(tmp_path):
    (tmp_path / "dhrd_plugin").mkdir()
    (tmp_path / "dhrd_plugin" / "autoload.py").write_text("def start():\n    print('hook')\n")
    assert start_with_pth(tmp_path).stdout == "hook\nstarted\n"


def test_harness_runs_with_a_half_removed_package(tmp_path):
    (tmp_path / "dhrd_plugin").mkdir()
    for name in ("__init__.py", "autoload.py"):
        shutil.copy(REPO / "dhrd_plugin" / name, tmp_path / "dhrd_plugin")
    code = """
from dhrd_plugin import autoload
autoload.install()
from lm_eval.tasks._index import TaskIndex
result = TaskIndex.build([])
"""
    done = run_python("-c", code, cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "DHRD could not hook into lm_eval.tasks._index" in done.stderr
    assert "dhrd_plugin.harness" in done.stderr


def test_module_is_the_harness_command_line(tmp_path):
    arguments = ("-m", "dhrd_plugin", "validate", "--tasks", "scenes,everyday,cb_cot")
    done = run_python(*arguments, cwd=tmp_path)
    assert "All tasks found and valid" in done.stdout, done.stderr
