"""An environment for each peer, made once from PyPI and reused while its stamp is right."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from suite.libraries import LIBRARIES, Library

BENCHMARKS = Path(__file__).resolve().parent.parent
TREE = BENCHMARKS.parent
ENVIRONMENTS = TREE / ".venv-bench"
INSTALL_TIMEOUT = 300


class EnvironmentMissingError(Exception):
    """An environment could not be made; the text says which command failed and why."""


def make_all(libraries: tuple[Library, ...]) -> dict[str, str]:
    """Make what is missing, side by side; return why it failed for each library that failed."""

    def attempt(library: Library) -> str | None:
        try:
            make(library)
        except EnvironmentMissingError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(LIBRARIES)) as threads:
        failures = zip(libraries, threads.map(attempt, libraries), strict=True)
        return {library.key: failure for library, failure in failures if failure}


def make(library: Library) -> None:
    """Make the library's environment unless it is there with the same interpreter and releases."""
    if not library.requirements:
        return
    home = ENVIRONMENTS / library.key
    stamp = home / "made-of"
    wanted = "\n".join([sys.version, *library.requirements])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n", encoding="utf-8")
    execute([sys.executable, "-m", "venv", "--clear", str(home)])
    pip = [str(interpreter(library)), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    execute([*pip, "install", *library.requirements])
    stamp.write_text(wanted, encoding="utf-8")


def execute(command: list[str]) -> None:
    """Run one step of making an environment, silently unless it fails."""
    try:
        subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        raise EnvironmentMissingError(
            f"{' '.join(command[1:4])} took over {INSTALL_TIMEOUT} s"
        ) from None
    except OSError as error:
        raise EnvironmentMissingError(f"{command[0]} cannot be started: {error}") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines() or ["it said nothing"]
        raise EnvironmentMissingError(f"{' '.join(command[1:4])} failed: {said[-1]}") from None


def interpreter(library: Library) -> Path:
    """The Python that has the library."""
    if not library.requirements:
        return Path(sys.executable)
    scripts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return ENVIRONMENTS.joinpath(library.key, *scripts)


def variables(library: Library) -> dict[str, str]:
    """The environment variables of a measurement: this tree is importable for asyncz only."""
    found = [str(BENCHMARKS)] if library.requirements else [str(BENCHMARKS), str(TREE)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": os.pathsep.join(found), "PYTHONHASHSEED": "0"}
