"""The start-up hook: teaches an unmodified lm-evaluation-harness our model and tasks.

lm_eval 0.4.13 discovers no plugins, so `dhrd_autoload.pth` runs `start()` in every Python process
of an environment where DHRD is installed. It only puts a finder on `sys.meta_path`; the work is
done right after the harness imports one of two modules. Standard library only, and nothing that
`site` has not imported already: every Python start pays for this file.
"""

import os
import sys

MODEL_NAME = "dhrd"
MODEL_TARGET = "dhrd_plugin.lm:DHRDLM"


def start() -> None:
    """Install the hook unless `DHRD_NO_AUTOLOAD` says otherwise."""
    if os.environ.get("DHRD_NO_AUTOLOAD", "") in ("", "0"):
        install()


def install() -> None:
    """Put the hook in place, once per process, also when the harness was imported before."""
    if HarnessFinder in sys.meta_path:
        return
    sys.meta_path.insert(0, HarnessFinder)
    for name, hook in HOOKS.items():
        if name in sys.modules:
            _run(hook, sys.modules[name])


class HarnessFinder:
    """A `sys.meta_path` entry that finds nothing itself: it adds a hook to what the others find."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hook = HOOKS.get(name)
        if hook is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is cls else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):  # a namespace package has no loader
                    _run_after_import(spec.loader, hook)
                return spec
        return None


def _run_after_import(loader, hook):
    def exec_module(module):
        del loader.exec_module  # once only: a loader may serve several modules (zip files)
        loader.exec_module(module)
        _run(hook, module)

    # On the instance: the loader keeps its class, and with it sources, resources and tracebacks.
    loader.exec_module = exec_module


def _run(hook, module):
    """A hook that fails (another harness, a half removed package) must not stop others' runs."""
    try:
        hook(module)
    except Exception as error:
        import logging

        logging.getLogger(__name__).warning(
            "DHRD could not hook into %s: %s: %s. Its model and tasks may be missing; "
            "reinstall it, or set DHRD_NO_AUTOLOAD=1.",
            module.__name__,
            type(error).__name__,
            error,
        )


def register_model(module):
    """After `lm_eval.models`, never before: a registry with an entry keeps the built-ins out."""
    from lm_eval.api.registry import model_registry

    # A harness with entry points may have been faster, with the same class.
    if MODEL_NAME not in model_registry:
        model_registry.register(MODEL_NAME, target=MODEL_TARGET)


def add_task_folders(module):
    """Make `TaskIndex.build` read the shipped tasks right after the harness's own.

    So a user's `--include_path` still wins, and `include_defaults=False` stays free of ours.
    """
    from dhrd_plugin.harness import task_folders

    shipped = task_folders()
    harness_folder = os.path.dirname(module.__file__)
    build = module.TaskIndex.build

    def build_with_shipped(paths, **kwargs):
        folders = list(paths)
        for position, folder in enumerate(folders, start=1):
            if os.fspath(folder) == harness_folder:
                folders[position:position] = [path for path in shipped if path not in folders]
                break
        return build(folders, **kwargs)

    module.TaskIndex.build = staticmethod(build_with_shipped)


HOOKS = {"lm_eval.models": register_model, "lm_eval.tasks._index": add_task_folders}
