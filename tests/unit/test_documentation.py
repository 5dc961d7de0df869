"""The documentation is correct: commands exist, Python blocks parse, every public name is described."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from jobmon.cli.main import main
from jobmon.client.arguments import placeholders

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "adr" not in path.parts)]
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(jobmon [a-z][^`\n]*)`")
COMMANDS_MIN = 60
TEMPLATES_MIN = 8


def blocks(*kinds):
    for path in PAGES:
        for found in BLOCK.finditer(path.read_text(encoding="utf-8")):
            if found["kind"] in kinds:
                yield path.name, found["text"]


def commands():
    """Every call of `jobmon` in a console block or a code span, without comments and redirections."""
    for name, text in blocks("console", "sh", "text", ""):
        for line in text.replace("\\\n", " ").splitlines():
            if found := re.match(r"\s*(?:\$ )(?:\w+=\S+ )*(?:\S*/)?(jobmon [^|#>;&]*)", line):
                yield name, found[1].strip()
    for path in PAGES:
        for span in SPAN.findall(BLOCK.sub("", path.read_text(encoding="utf-8"))):
            yield path.name, span.split(" | ")[0].strip()


def problem(line):
    """Say what is wrong with a call: no such command, or no such option."""
    words = shlex.split(re.sub(r"[<>\[\]…]|\.\.\.", "", line))[1:]
    command, context = main, click.Context(main, info_name="jobmon")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        names = words[0].split("|")  # `jobmon cluster list|add|remove`
        found = [command.get_command(context, name) for name in names]
        if None in found:
            return f"no command {words[0]!r}"
        command = found[0]
        context = click.Context(command, parent=context, info_name=words.pop(0))
    options = {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
    quiet = {name for each in command.params for name in getattr(each, "_quiet", ())}
    for word in words:
        name = word.split("=")[0]
        is_option = len(word) > 1 and word.startswith("-") and not word[1:].isdigit()
        if is_option and name not in (options - quiet) | {"--help", "-h"}:
            return f"no option {name}, or one that is not shown any more"
    return ""


def test_every_command_exists_as_it_is_shown():
    shown = list(commands())
    assert len(shown) >= COMMANDS_MIN
    assert [f"{page}: {line}: {wrong}" for page, line in shown if (wrong := problem(line))] == []


def test_every_block_of_python_parses():
    for page, text in blocks("python"):
        try:
            ast.parse(text)
        except SyntaxError as error:
            pytest.fail(f"{page}: {error}\n{text}")


def test_every_command_template_can_be_read():
    templates = []
    for _, text in blocks("python"):
        for node in ast.walk(ast.parse(text)):
            is_argument = isinstance(node, ast.keyword) and node.arg == "command_template"
            is_line = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "command_template"
            if (is_argument or is_line) and isinstance(node.value, ast.Constant):
                templates.append(node.value.value)
    assert len(templates) >= TEMPLATES_MIN
    for template in templates:
        placeholders(template)


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_names():
    """Every class, method, property and function of the reference: name, object."""
    generate = generator()
    for module, names in generate.API.items():
        for name in names:
            item = getattr(importlib.import_module(module), name)
            yield name, item
            if inspect.isclass(item):
                yield from ((f"{name}.{member}", value) for member, value in generate.public_members(item))


def test_every_public_name_is_described():
    names = list(public_names())
    assert len(names) > 100
    assert [name for name, item in names if not inspect.getdoc(item)] == []


def test_every_parameter_is_described():
    missing = []
    for name, item in public_names():
        function = item.__func__ if isinstance(item, staticmethod | classmethod) else item
        if isinstance(function, property) or name in generator().CREATED:
            continue
        text = inspect.getdoc(function) or ""
        parameters = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
        if len(parameters) > 1:
            missing += [f"{name}({each})" for each in parameters if not re.search(rf"\b{each}\b", text)]
    assert missing == []


def test_every_page_is_on_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["theme"]["font"] is False
    shown = set(re.findall(r"[\w/-]+\.md", text))
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES if path.parent != ROOT}
    assert shown == pages
