"""What README and docs say is true: their code runs, their settings load, their commands exist."""

import re
import sys
from pathlib import Path

import pytest
from conftest import DEMO
from typer.main import get_command

from lorauter_integrations.cli.app import app
from lorauter_integrations.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language, pages=PAGES):
    return [
        pytest.param(found, id=f"{page.name}-{number}")
        for page in pages
        for number, found in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL), 1)
    ]


@pytest.mark.real_model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("code", blocks("python", PAGES[:1]))
def test_the_readmes_code_runs_on_the_real_model(code, real_lorauter, real_settings, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LORAUTER_INDEX__PATH", real_settings.index.path)
    monkeypatch.setenv("LORAUTER_POOL__PATH", real_settings.pool.path)
    monkeypatch.setenv("LORAUTER_MAPPING__LEDGER", real_settings.mapping.ledger)
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    langchain = "Microsoft will open a new office in Berlin on Monday." in shown and "SELECT" in shown
    assert langchain or "negative sentiment" in shown


@pytest.mark.parametrize("code", blocks("python", PAGES[1:]))
def test_the_docs_code_runs(code):
    exec(compile(code, "docs", "exec"), {})


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_settings_shown_are_valid(text):
    assert Settings(**({"model": {"name": "any"}} | tomllib.loads(text))).model.name


@pytest.mark.parametrize("text", blocks("console"))
def test_the_commands_shown_exist(text):
    makefile = (ROOT / "Makefile").read_text()
    for line in re.findall(r"^\$ (.+?)(?:\s+#.*)?$", text, re.MULTILINE):
        program, *words = line.split()
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), line
        elif program == "lorauter":
            command = get_command(app)
            for word in words:
                if not hasattr(command, "commands"):
                    break
                assert word in command.commands, line
                command = command.commands[word]
        else:
            assert (program, words[0]) in {("pip", "install"), ("ray", "start")}, line


def test_every_setting_is_described_with_its_default():
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "settings.md").read_text(), re.DOTALL)[1]
    shown = tomllib.loads(text)
    real = Settings(model={"name": shown["model"]["name"]}).model_dump(mode="json")
    skipped = {("model", "dtype"), ("encoder", "device"), ("generation", "seed"), ("generation", "timeout")}
    for table, values in real.items():
        for key, value in values.items():
            if value is None and (table, key) not in skipped:
                assert f"\n# {key} = " in text, f"[{table}] {key}"
            elif (table, key) not in skipped:
                assert shown[table][key] == value, f"[{table}] {key}"


def test_the_readme_links_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_demos_tasks_have_24_examples_each():
    counts = [len(file.read_text().splitlines()) for file in DEMO.glob("tasks/*/validation.jsonl")]
    assert counts == [24] * 8
