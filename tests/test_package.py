"""What a person gets who installs the library: names, types, extras, and no more than was asked."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import mypy.api
import pytest
import yaml

import sgnoise
from sgnoise import version

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "scripts" / "sgnoise"


def run(code: str, python: Path | str = sys.executable, **settings: str) -> str:
    """What a fresh Python prints; the library is found as in the clone unless it is installed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", code],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_the_clone(code: str) -> str:
    return run(code, PYTHONPATH=str(ROOT / "scripts"))


def without(*names: str) -> str:
    """Code after which these packages cannot be imported."""
    return f"import sys; sys.modules.update(dict.fromkeys({names!r})); "


def public_names() -> list[str]:
    stub = ast.parse(LIBRARY.joinpath("__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def test_the_citation_has_the_version_of_the_library() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert sgnoise.__version__ == version.__version__ == citation["version"]


def test_every_public_name_is_there_and_documented() -> None:
    names = public_names()
    assert len(set(names)) == len(names) > 20
    for name in names:
        value = getattr(sgnoise, name)
        assert name == "__version__" or value.__doc__
    assert set(names) <= set(dir(sgnoise))
    # The list of names stands in the stub alone: a new one changes the digest of no script.
    code = ast.parse(LIBRARY.joinpath("__init__.py").read_text())
    identifiers = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
    assert not identifiers & set(names)


def test_help_ranks_what_there_is() -> None:
    lines = re.findall(r"^ {4}(\w+)", sgnoise.__doc__ or "", re.MULTILINE)
    ranks = ["measure", "Probe", "gradients", "fit_stable", "stable", "laws", "goodness", "escape"]
    assert [name for name in lines if name in ranks] == ranks


def test_an_unknown_name_points_to_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'fit_stabel'; did you mean 'fit_stab"):
        sgnoise.fit_stabel  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        sgnoise.zzz  # type: ignore[attr-defined] # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    loaded = "print(sorted({'numpy', 'numba', 'torch', 'pyarrow', 'pandas'} & sys.modules.keys()))"
    assert in_the_clone(f"import sys, sgnoise; {loaded}") == "[]\n"
    fitting = in_the_clone(f"import sys, sgnoise.fitting; {loaded}")
    assert "torch" not in fitting
    assert "pyarrow" not in fitting


def test_a_missing_extra_is_named() -> None:
    code = without("torch", "pyarrow") + (
        "import sgnoise\n"
        "assert 'fit_stable' in dir(sgnoise)\n"
        "try:\n    from sgnoise import per_sample_gradients\n"
        "except ImportError as error:\n    print(error)"
    )
    message = in_the_clone(code)
    assert re.fullmatch(
        r"sgnoise\.per_sample_gradients needs \w+: pip install 'sgnoise\[torch\]'\n", message
    )


def test_what_an_extra_brings_is_enough() -> None:
    """With the packages of the core and of the extra ``torch`` alone, a network is measured."""
    others = "jinja2 jsonschema lifelines matplotlib PIL safetensors seaborn sklearn snakemake yaml"
    others += " torchvision"
    code = without(*others.split()) + (
        "import torch, sgnoise\n"
        "data = torch.randn(90, 4), torch.randint(3, (90,))\n"
        "loss = torch.nn.functional.cross_entropy\n"
        "table = sgnoise.measure(torch.nn.Linear(4, 3), loss, data, [8], laws=['gaussian'])\n"
        "print(len(table), sgnoise.Probe(torch.nn.Linear(4, 3), loss, data)(1))"
    )
    assert in_the_clone(code) == "30 None\n"


def test_type_checkers_see_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "import sgnoise\n"
        "fit = sgnoise.fit_stable([[1.0] * 30])\n"
        "reveal_type(fit)\n"
        "sgnoise.fit_stabel\n"
    )
    monkeypatch.chdir(ROOT)  # with the project's settings, and what was cached when it was linted
    out, _, status = mypy.api.run([str(snippet)])
    assert status == 1
    assert 'Revealed type is "sgnoise.fitting.Fit"' in out
    assert 'Module has no attribute "fit_stabel"' in out
    assert out.count("error:") == 1


def installed_with(*names: str) -> set[Path]:
    """What lies in the site-packages of these distributions and of all that they need."""
    roots: set[Path] = set()
    done: set[str] = set()
    coming = list(names)
    while coming:
        name = coming.pop()
        if name in done:
            continue
        done.add(name)
        found = metadata.distribution(name)
        for file in found.files or []:
            if file.parts[0] not in ("..", "__pycache__"):
                roots.add(Path(str(found.locate_file(file.parts[0]))))
        for requirement in found.requires or []:
            if "extra ==" not in requirement and "python_version <" not in requirement:
                coming.append(re.split(r"[<>=~!; \[(]", requirement)[0])
    return roots


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, and with what its core asks for; nothing else.

    The packages of the core are linked from this environment: no test needs a network.
    """
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, *build, f"--wheel-dir={folder}", str(ROOT)], check=True)
    (wheel,) = folder.glob("sgnoise-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, f"--python={python}", *install], check=True)
    (site,) = folder.glob("env/lib/python*/site-packages")
    (about,) = site.glob("sgnoise-*.dist-info")
    requires = re.findall(r"^Requires-Dist: ([\w-]+)", (about / "METADATA").read_text(), re.M)
    core = [name for name in requires if name in {"numba", "numpy", "pandas", "scipy"}]
    assert sorted(core) == ["numba", "numpy", "pandas", "scipy"]
    for path in installed_with(*core):
        (site / path.name).symlink_to(path)
    return python


def test_the_wheel_fits_with_the_core_alone(bare: Path) -> None:
    code = (
        "import sgnoise, numpy as np, pathlib, sys\n"
        "fit = sgnoise.fit_stable(np.random.default_rng(0).standard_cauchy((1, 1000)))\n"
        "print(abs(fit.alpha[0] - 1) < 5 * fit.alpha_se[0] < 0.5)\n"
        "print(sgnoise.__version__, 'site-packages' in sgnoise.__file__)\n"
        "print(pathlib.Path(sgnoise.__file__).with_name('py.typed').exists())\n"
        "print('measure' in dir(sgnoise), 'noise' in dir(sgnoise))\n"
        "help(sgnoise)\n"
    )
    lines = run(code, bare).splitlines()
    assert lines[:4] == ["True", f"{version.__version__} True", "True", "False True"]
    with pytest.raises(AssertionError, match=r"needs torch: pip install 'sgnoise\[torch\]'"):
        run("from sgnoise import gradients", bare)


def test_the_wheel_brings_the_command(bare: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("x\n" + "\n".join(str(i % 7 - 3.5) for i in range(60)))
    command = [str(bare.with_name("sgnoise")), "fit", str(numbers), "--laws", "gaussian,laplace"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 values" in done.stdout
    assert "Gaussian" in done.stdout
