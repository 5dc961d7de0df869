"""The commands of `stdlib_census.py`: measure a module, summarize a package, write the report.

python -I -S stdlib_census_steps.py measure LIBRARY MODULE OUTPUT
python -I -S stdlib_census_steps.py summarize PACKAGE OUTPUT [--fail-first-attempt]
python stdlib_census_steps.py report OUTPUT
"""

import ast
import json
import os
import sys

#: Each of these adds one path through a function.
DECISIONS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.comprehension)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
TRY_LATER = 75


# --- measure ----------------------------------------------------------------------------------------------------------


def measure(library, module, output):
    """Write the figures of one module."""
    with open(os.path.join(library, module), "rb") as stream:
        source = stream.read()
    tree = ast.parse(source)
    functions = [(complexity(node), node.name) for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    figures = {
        "module": module,
        "bytes": len(source),
        "lines": source.count(b"\n"),
        "classes": sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
        "functions": functions,
        "imports": sorted(imports(tree)),
    }
    save(figures, output, "modules", *module.split("/")[:-1], os.path.basename(module) + ".json")


def complexity(function):
    """Count the paths through a function (McCabe complexity), excluding nested functions."""
    ways = 1
    inside = list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, FUNCTIONS):
            continue
        if isinstance(node, DECISIONS):
            ways += 1
        elif isinstance(node, ast.BoolOp):
            ways += len(node.values) - 1
        elif isinstance(node, ast.Match):
            ways += len(node.cases)
        inside += ast.iter_child_nodes(node)
    return ways


def imports(tree):
    """Return the top-level names that a module imports from outside its own package."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


# --- summarize --------------------------------------------------------------------------------------------------------


def summarize(package, output, *options):
    """Sum up the modules of a package."""
    if "--fail-first-attempt" in options and os.environ.get("JOBMON_ATTEMPT") == "1":
        print("A disk that is not there yet: please try again.", file=sys.stderr)
        sys.exit(TRY_LATER)
    modules = [load(path) for path in files_below(os.path.join(output, "modules", package))]
    functions = [(ways, f"{module['module']}: {name}") for module in modules for ways, name in module["functions"]]
    summary = {
        "package": package,
        "modules": len(modules),
        "lines": sum(module["lines"] for module in modules),
        "classes": sum(module["classes"] for module in modules),
        "functions": len(functions),
        "complexity": sum(ways for ways, _ in functions) / max(1, len(functions)),
        "most_complex": max(functions, default=(0, "-")),
        "imports": sorted({name for module in modules for name in module["imports"]} - {package}),
    }
    save(summary, output, "packages", package + ".json")


# --- report -----------------------------------------------------------------------------------------------------------


def report(output):
    """Write one page and one picture about all packages."""
    packages = [load(path) for path in files_below(os.path.join(output, "packages"))]
    packages.sort(key=lambda package: -package["lines"])
    draw(packages, os.path.join(output, "census.png"))
    with open(os.path.join(output, "highlights.txt"), "w", encoding="utf-8") as stream:
        stream.write(highlights(packages))
    with open(os.path.join(output, "report.md"), "w", encoding="utf-8") as stream:
        stream.write(page(packages))


def highlights(packages):
    """Return the most interesting facts in a few lines."""
    total = {key: sum(package[key] for package in packages) for key in ("modules", "lines", "functions", "classes")}
    largest = packages[0]
    densest = max((package for package in packages if package["functions"] >= 20), key=lambda p: p["complexity"])
    wanted = max(packages, key=lambda package: importers(package, packages))
    ways, name = max(package["most_complex"] for package in packages)
    return (
        f"{total['modules']:,} modules, {total['lines']:,} lines, "
        f"{total['functions']:,} functions, {total['classes']:,} classes.\n"
        f"Largest package:        {largest['package']}, {largest['lines']:,} lines\n"
        f"Most decisions:         {densest['package']}, {densest['complexity']:.1f} ways through a function\n"
        f"Most complex function:  {name}, {ways} ways\n"
        f"Most imported package:  {wanted['package']}, by {importers(wanted, packages)} others\n"
    )


def importers(package, packages):
    """Count the packages that import this one."""
    return sum(package["package"] in other["imports"] for other in packages)


def page(packages):
    """Return the report as Markdown."""
    rows = "\n".join(
        f"| {p['package']} | {p['modules']} | {p['lines']:,} | {p['functions']:,} | {p['classes']:,} "
        f"| {p['complexity']:.2f} | {p['most_complex'][1]} ({p['most_complex'][0]}) | {importers(p, packages)} |"
        for p in packages
    )
    return (
        f"# A census of the standard library of Python {sys.version.split()[0]}\n\n"
        f"```\n{highlights(packages)}```\n\n![The census](census.png)\n\n"
        "Complexity is the number of ways through a function: one, and one more for each decision in it.\n\n"
        "| package | modules | lines | functions | classes | complexity | most complex function | imported by |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |\n"
        f"{rows}\n"
    )


def draw(packages, path):
    """Draw sizes and complexity on the left, and imports between packages on the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, 7), width_ratios=(1, 1.1), layout="constrained")
    figure.suptitle(f"The packages of the standard library of Python {sys.version.split()[0]}", fontsize=15)
    names = [package["package"] for package in packages]
    draw_sizes(pyplot, figure, left, packages, names)
    draw_imports(right, packages, names)
    figure.savefig(path, dpi=110)


def draw_sizes(pyplot, figure, axes, packages, names):
    """Draw a bar for each package: length shows size, color shows complexity."""
    values = [package["complexity"] for package in packages]
    norm = pyplot.Normalize(min(values), max(values))
    colours = pyplot.cm.viridis_r(norm(values))
    axes.barh(names, [package["lines"] for package in packages], color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("lines of source")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.01)
    scale = pyplot.cm.ScalarMappable(norm=norm, cmap="viridis_r")
    figure.colorbar(scale, ax=axes, label="mean ways through a function", shrink=0.7)


def draw_imports(axes, packages, names):
    """Draw a dot for each import of one package by another."""
    dots = [
        (column, row)
        for row, package in enumerate(packages)
        for column, name in enumerate(names)
        if name in package["imports"]
    ]
    axes.scatter(*zip(*dots, strict=True), s=36, color="#31688e")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title("the package of the row imports that of the column", fontsize=11)


# --- files ------------------------------------------------------------------------------------------------------------


def save(value, *place):
    """Write a value as JSON; the file appears only when it is complete."""
    path = os.path.join(*place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(path + ".part", path)


def load(path):
    """Read a value that was saved."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def files_below(folder):
    """Return the paths of all files below a folder, sorted."""
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)


STEPS = {"measure": measure, "summarize": summarize, "report": report}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
