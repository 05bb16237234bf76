"""Find and load harness tasks by name, the shipped ones included."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import DHRDError


def task_folders() -> list[Path]:
    """The shipped task families to add to the harness's own, one folder each.

    `record_squad_free` replaces the harness's `record` only where that one cannot load: its util.py
    imports `transformers.data.metrics`, which transformers 5.20 removed. The file is looked for
    instead of imported, because `find_spec` on a submodule would import transformers.
    """
    here = Path(__file__).resolve().parent
    # A wheel carries tasks/ inside the package; an editable install reads the checkout's.
    root = next((p for p in (here / "tasks", here.parent / "tasks") if p.is_dir()), None)
    if root is None:
        return []
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
    if stock_record_loads():
        folders = [p for p in folders if p.name != "record_squad_free"]
    return folders


def stock_record_loads() -> bool:
    """Whether the installed transformers still has what the harness's `record` task imports."""
    installed = (Path(entry) / "transformers" for entry in sys.path)
    first = next((folder for folder in installed if folder.is_dir()), None)
    return first is not None and (first / "data" / "metrics" / "squad_metrics.py").is_file()


def load_task(name: str, include_path: str | None = None) -> Any:
    """The harness task object called `name`.

    The folders where it probably lives are indexed first (a full index reads thousands of YAML
    files, about two seconds); `include_path` wins over all others, as in the harness.

    Raises:
        DHRDError: no such task (similar names are listed), a group or tag instead of a task, or
            data that cannot be loaded.
    """
    from lm_eval import tasks as harness_tasks

    if include_path is not None and not Path(include_path).is_dir():
        raise DHRDError(
            f"--include-path {include_path}: no such folder. Give the folder that holds your "
            "task's YAML file."
        )
    user = [include_path] if include_path else []
    shipped = [str(p) for p in task_folders()]
    stock = Path(harness_tasks.__file__).parent
    near = [str(stock / "super_glue"), *shipped, *user]
    manager = harness_tasks.TaskManager(include_path=near, include_defaults=False)
    if name not in manager.task_index:
        manager = harness_tasks.TaskManager(include_path=[*shipped, *user])
    if name not in manager.task_index:
        _raise_if_unreadable(include_path)
        raise DHRDError(f"Unknown task {name!r}. {_similar(name, manager.all_subtasks)}")
    if name not in manager.all_subtasks:
        members = sorted(manager.task_index[name].tags)
        hint = f" Its tasks: {','.join(members)}." if members else ""
        raise DHRDError(f"{name!r} is a group or tag, not a task. Name the tasks themselves.{hint}")
    try:
        return manager.load([name])["tasks"][name]
    except Exception as error:
        raise DHRDError(
            f"Task {name!r} was found but could not be loaded: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else ''}\n"
            "Check that its data set can be reached (a hub id needs network or a local folder of "
            "that name in the current directory), and that its YAML's templates fit the columns."
        ) from error


def _raise_if_unreadable(include_path: str | None) -> None:
    """Name a YAML file of the user's that the harness passed over because it cannot be read."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(Path(include_path).rglob("*.yaml")) if include_path else []:
        try:
            load_yaml(path, resolve_func=False)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DHRDError(f"{path}: cannot be read as a task: {error}") from error


def _similar(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    if close:
        return f"Similar names: {', '.join(close)}."
    return "List all with `lm_eval ls tasks`; for your own YAML pass --include-path FOLDER."


def split_docs(task: Any, split: str) -> Any:
    """The processed documents of `split` ("train", "validation" or "test").

    Raises:
        DHRDError: an unknown split, or one that the task does not have.
    """
    sources = {
        "train": (task.has_training_docs, task.training_docs),
        "validation": (task.has_validation_docs, task.validation_docs),
        "test": (task.has_test_docs, task.test_docs),
    }
    if split not in sources:
        raise DHRDError(f"Unknown split {split!r}: use one of {', '.join(sources)}.")
    has, docs = sources[split]
    if not has():
        have = [name for name, (there, _) in sources.items() if there()]
        raise DHRDError(
            f"Task {task.config.task!r} has no {split} split "
            f"(it has: {', '.join(have) or 'none'}). "
            "Its YAML needs `training_split:` to be taught and distilled."
        )
    return docs()


def render_requests(task: Any, doc: dict, doc_id: int) -> list[Any]:
    """The harness's own request instances for `doc`, exactly as `build_all_requests` makes them."""
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    return task.construct_requests(
        doc=doc,
        ctx=context,
        metadata=(task.config.task, doc_id, task.config.repeats),
        apply_chat_template=False,
        chat_template=None,
    )
