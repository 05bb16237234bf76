"""An environment with nothing of ours but the built wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Installation:
    """A virtual environment that has the wheel, and everything else from the tests' own."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.root.glob("lib/python*/site-packages"))

    def files(self) -> list[str]:
        found = (path.relative_to(self.site_packages) for path in self.site_packages.rglob("*"))
        return sorted(str(path) for path in found)

    def run(self, command: str, *arguments: str, cwd: Path) -> str:
        """Output of a console script: ours from the wheel, others from the tests' environment."""
        script = self.root / "bin" / command
        if not script.exists():
            script = Path(sys.executable).parent / command
        return run(str(self.python), str(script), *arguments, cwd=cwd)

    def pip(self, *arguments: str) -> str:
        pip = (sys.executable, "-m", "pip", "--python", str(self.python))
        return run(*pip, *arguments, cwd=self.root)


def run(*command: str, cwd: Path) -> str:
    """Output of a command that must succeed. PYTHONPATH stays: `make test-oldest` works by it."""
    env = {key: value for key, value in os.environ.items() if key != "DHRD_NO_AUTOLOAD"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPO))
    run(sys.executable, *build, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture
def installation(wheel, tmp_path) -> Installation:
    """Freshly made for each test: some of them uninstall."""
    root = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", str(root), cwd=tmp_path)
    made = Installation(root)
    # A plain path line: the `.pth` files over there, such as an editable install's, stay unread.
    shared = [entry for entry in sys.path if entry.endswith("site-packages")]
    (made.site_packages / "zz_shared.pth").write_text("\n".join(shared))
    made.pip("install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return made
