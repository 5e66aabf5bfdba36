"""Who may import whom, read from the source; and what an import loads, seen in a fresh process."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lorauter_integrations

NAME = "lorauter_integrations"
ROOT = Path(lorauter_integrations.__file__).parent
FILES = sorted(set(ROOT.rglob("*.py")) - {ROOT / "__init__.py"})

VALUES = {
    "answer_form",
    "digests",
    "errors",
    "mixture",
    "generation",
    "metrics",
    "task",
    "route_text",
    "choice",
    "adapter_map",
    "tool_calls",
    "call_object",
    "call_stream",
    "locations",
    "extras",
    "journal",
}
ALLOWED = {
    **dict.fromkeys(VALUES, VALUES),
    "routing": VALUES | {"routing"},
    "pool": VALUES | {"pool"},
    "mixing": VALUES | {"mixing", "pool"},
    "engines": VALUES | {"engines", "mixing", "pool"},
    "matching": VALUES | {"matching", "engines", "pool"},
    "reports": VALUES | {"reports", "evaluation"},
    "evaluation": VALUES | {"evaluation", "engines", "matching", "mixing", "pool", "routing", "reports"},
}
FRAMEWORKS = {"langchain", "llama_index"}
EVERYTHING = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
INNER = EVERYTHING - FRAMEWORKS - {"cli", "__init__"}
ALLOWED |= dict.fromkeys(("asking", "lorauter", "opening", "settings", "mapping", "_version"), INNER)
ALLOWED["lorauter"] = INNER | {"langchain"}  # inside `as_runnable`; see what an import loads, below
ALLOWED |= {framework: INNER | {framework} for framework in FRAMEWORKS}
ALLOWED |= {"cli": INNER | {"cli"}}

HOMES = {
    "chromadb": {"routing/chroma.py"},
    "sentence_transformers": {"routing/encoder.py"},
    "torch": {"mixing", "engines", "pool/pickled.py"},
    "transformers": {"mixing", "engines"},
    "peft": set(),
    "matplotlib": {"reports/heat_map.py"},
    "ray": {"matching/ray_workers.py"},
    "huggingface_hub": {"pool/hub/client.py"},
    "langchain_core": {"langchain"},
    "langchain": set(),
    "llama_index": {"llama_index"},
}


def imports(file):
    """Full names of all modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            # `from lorauter_integrations import X` is an import of X's home or of a module X.
            yield from ((f"{NAME}.{alias.name}" for alias in node.names) if node.module == NAME else [node.module])


def part_of(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_module_imports_only_what_its_place_allows(file):
    inner = {name.split(".")[1] for name in imports(file) if name.startswith(f"{NAME}.")}
    assert inner <= ALLOWED[part_of(file)]


def test_every_part_of_the_package_has_a_rule():
    assert {part_of(file) for file in FILES} == set(ALLOWED)


@pytest.mark.parametrize("library", HOMES)
def test_heavy_library_has_one_home(library):
    users = {file.relative_to(ROOT) for file in FILES if library in {name.split(".")[0] for name in imports(file)}}
    homes = HOMES[library]
    assert {user for user in users if user.as_posix() not in homes and user.parts[0] not in homes} == set()
    assert bool(users) == bool(homes)


HEAVY = list(HOMES)
LIGHT = [
    "",
    ".settings",
    ".task",
    ".pool",
    ".routing",
    ".evaluation",
    ".matching",
    ".reports",
    ".engines",
    ".mapping",
    ".lorauter",
    ".cli.app",
]


@pytest.mark.parametrize("module", LIGHT, ids=lambda module: module or "package")
def test_import_loads_nothing_heavy(module):
    code = f"import json, sys, {NAME}{module}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(run.stdout))
    assert f"{NAME}{module}" in loaded
    assert loaded & set(HEAVY) == set()


def test_names_of_the_package_are_sorted_and_have_a_home():
    assert lorauter_integrations.__all__ == sorted(lorauter_integrations.__all__)
    assert set(lorauter_integrations.__all__) == {*lorauter_integrations._HOME_OF, "__version__"}
    assert dir(lorauter_integrations) == lorauter_integrations.__all__


@pytest.mark.parametrize("name", lorauter_integrations.__all__)
def test_name_of_the_package_resolves(name):
    assert getattr(lorauter_integrations, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=f"module '{NAME}' has no attribute 'Loraouter'"):
        _ = lorauter_integrations.Loraouter


def test_reports_know_the_values_of_an_evaluation_only():
    files = [file for file in FILES if part_of(file) == "reports"]
    names = {name for file in files for name in imports(file) if name.startswith(f"{NAME}.evaluation")}
    assert names == {f"{NAME}.evaluation.results"}
