"""Builds the wheel and uses it as a stranger would: outside the checkout, every module imported."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

IMPORT_ALL = """
import sys, pkgutil, importlib, warnings
warnings.simplefilter("error", SyntaxWarning)
import fedit
assert fedit.__file__.startswith(sys.argv[1]), f"imported from {fedit.__file__}, not from the wheel"
heavy = {"torch", "transformers", "datasets", "peft"} & set(sys.modules)
assert not heavy, f"`import fedit` alone already loads {sorted(heavy)}"
names = {m.name for m in pkgutil.walk_packages(fedit.__path__, "fedit.")} - {"fedit.__main__"}
for name in sorted(names):
    importlib.import_module(name)
print(len(names))
"""


def python(target: Path, *arguments: str) -> str:
    """Run this interpreter outside the checkout, with the unpacked wheel ahead of everything."""
    environment = {**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=target.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"wheel check: python {arguments[0]} ended with {done.returncode}")
    return done.stdout


def check_contents(wheel: Path) -> None:
    """Everything under src/fedit is in the wheel, and nothing else but its metadata."""
    shipped = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    wanted = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src/fedit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if shipped != wanted:
        sys.exit(
            f"wheel check: missing {sorted(wanted - shipped)}, extra {sorted(shipped - wanted)}"
        )
    if "fedit/py.typed" not in shipped:
        sys.exit("wheel check: py.typed is missing: type checkers would ignore the package's types")


def main() -> None:
    """Build, look inside, install beside this environment's third-party packages, import, run."""
    with tempfile.TemporaryDirectory() as folder:
        dist, target = Path(folder, "dist"), Path(folder, "site")
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist)]
        subprocess.run([*build, str(ROOT)], check=True, stdout=subprocess.DEVNULL)
        (wheel,) = dist.glob("*.whl")
        check_contents(wheel)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
        modules = python(target, "-c", IMPORT_ALL, str(target)).strip()
        usage = python(target, str(target / "bin/fedit"), "--help")
        if "run" not in usage:
            sys.exit(f"wheel check: `fedit --help` does not tell of `run`:\n{usage}")
        print(f"{wheel.name}: {modules} modules import, `fedit --help` answers")


if __name__ == "__main__":
    main()
