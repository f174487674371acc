"""A wheel carries the course's files in ``survey_lib/_home``; see `survey_lib.home`. All else is in pyproject.toml."""

import hashlib
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
CARRIED = ("README.md", "notebooks/*.ipynb", "docs/*", "docs/*/*", "data/results/*.csv")
CARRIED += tuple(f"data/{name}/*" for name in ("atlas", "checkpoints", "claims", "sweeps"))


class WithCourse(build_py):
    """The package with the course's files, unless it is installed from a clone as it is (``pip install -e``)."""

    def run(self):
        super().run()
        if not self.editable_mode:
            self.carry(Path(self.build_lib) / "survey_lib" / "_home")

    def carry(self, target):
        shutil.rmtree(target, ignore_errors=True)
        digest = hashlib.sha256()
        for path in sorted({path for pattern in CARRIED for path in HERE.glob(pattern) if path.is_file()}):
            name = path.relative_to(HERE)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)
            digest.update(str(name).encode() + b"\0" + path.read_bytes())
        version = self.distribution.get_version()
        (target / "stamp").write_text(f"{version}-{digest.hexdigest()[:8]}\n")


setup(cmdclass={"build_py": WithCourse})
