"""spokeshave where: the file, the line and the page of an idea, by the word that the papers use for it.

It searches the README's map (where the sources are at hand), the first lines of every module, and the names of the
public functions and classes, all read from the files themselves: there is no index to keep.
"""

import ast
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

PACKAGE = Path(__file__).resolve().parents[1]
MAP_ROW = re.compile(r"^\|(?P<idea>[^|]+)\|(?P<files>[^|]*src/spokeshave/[^|]*)\|(?P<page>[^|]*)\|$")
SOURCE = re.compile(r"\(src/spokeshave/([^)]+\.py)\)")


@dataclass(frozen=True)
class Place:
    """One thing that can be found: the words it goes by, and where it stands."""

    words: str
    file: Path
    line: int
    page: str = ""
    weight: float = 1.0


def command(arguments: list[str]) -> int:
    """Print where an idea stands.

    Args:
        arguments: the words after `where`.

    Returns:
        0, or 1 where nothing was found.
    """

    def options(word: tyro.conf.Positional[tuple[str, ...]], limit: int = 5) -> tuple[str, int]:
        """Say which file, line and page an idea stands in.

        Args:
            word: the idea, as in: group lasso.
            limit: how many places to show.
        """
        return " ".join(word), limit

    word, limit = tyro.cli(options, prog="spokeshave where", args=arguments)
    places = all_places(PACKAGE)
    found = search(word, places)[:limit]
    console = Console(highlight=False, soft_wrap=True)
    if not found:
        near = near_misses(word, places)
        hint = f"; near it: {', '.join(near)}" if near else ""
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"nothing is called {word!r}{hint}", markup=False)
        return 1
    for place in found:
        console.print(f"[bold cyan]{shown(place.file)}:{place.line}[/bold cyan]  {_escaped(place.words)}")
        if place.page:
            console.print(f"    {place.page}", markup=False)
    return 0


def all_places(package: Path) -> list[Place]:
    """Collect what can be found: rows of the README's map, modules, public functions and classes.

    Args:
        package: the folder of the package, with or without the project's sources around it.
    """
    readme = package.parents[1] / "README.md"
    mapped = map_rows(readme.read_text()) if readme.is_file() else []
    pages = {file: page for _, file, page in mapped}
    places = [Place(idea, package / file, 1, page, weight=1.2) for idea, file, page in mapped]
    for file in sorted(package.rglob("*.py")):
        page = pages.get(file.relative_to(package).as_posix(), "")
        tree = ast.parse(file.read_text())
        headline = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")
        stem = file.parent.name if file.stem == "__init__" else file.stem
        places.append(Place(f"{stem.replace('_', ' ')}: {headline}", file, 1, page))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                first = (ast.get_docstring(node) or "").split("\n")[0]
                places.append(Place(f"{node.name}: {first}", file, node.lineno, page, weight=0.9))
    return places


def map_rows(readme: str) -> list[tuple[str, str, str]]:
    """Read the README's map.

    Args:
        readme: its text.

    Returns:
        (idea, file below the package, page), one for each source file of each row.

    Example:
        >>> map_rows("| group lasso | [a](src/spokeshave/regularizers/group_lasso.py) | [b](docs/papers/ssl.md) |")
        [('group lasso', 'regularizers/group_lasso.py', 'docs/papers/ssl.md')]
    """
    rows = []
    for line in readme.splitlines():
        if match := MAP_ROW.match(line.strip()):
            page = re.sub(r"\[[^\]]*\]\(([^)]*)\)", r"\1", match["page"]).strip("` ")
            rows += [(match["idea"].strip().replace("**", ""), file, page) for file in SOURCE.findall(match["files"])]
    return rows


def search(word: str, places: list[Place]) -> list[Place]:
    """Rank the places that match an idea, best first; those that match badly are left out.

    Args:
        word: one word or several.
        places: where to look.
    """
    wanted = _words(word)
    if not wanted:
        return []
    scored = sorted(((_score(wanted, place), place) for place in places), key=lambda pair: -pair[0])
    best: dict[tuple[Path, int], Place] = {}
    for score, place in scored:
        if score >= 0.75:
            best.setdefault((place.file, place.line), place)
    return list(best.values())


def near_misses(word: str, places: list[Place]) -> list[str]:
    """Suggest words that look like the one asked for.

    Args:
        word: what was asked.
        places: where it was looked for.
    """
    names = {place.words.split(":")[0].strip().lower() for place in places}
    single = {part for name in names for part in _words(name)}
    return difflib.get_close_matches(word.lower(), sorted(names | single), n=3, cutoff=0.55)


def shown(file: Path) -> str:
    """Write a path from the current folder where it lies below it, else whole."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _score(wanted: list[str], place: Place) -> float:
    """Average over the wanted words of how well each is matched, more where the name itself matches."""
    name, _, rest = place.words.partition(":")
    in_name, in_rest = _words(name), _words(rest)
    per_word = [max(_closeness(one, in_name), 0.8 * _closeness(one, in_rest, exact=True)) for one in wanted]
    exactness = len(set(wanted) & set(in_name)) / max(len(set(in_name)), 1)
    return (min(per_word) >= 0.75) * (sum(per_word) / len(per_word) + 0.5 * exactness) * place.weight


def _closeness(one: str, words: list[str], exact: bool = False) -> float:
    best = 0.0
    for word in words:
        if word == one or word.rstrip("s") == one.rstrip("s"):
            return 1.0
        shorter, longer = sorted((one, word), key=len)
        if len(shorter) >= 4 and longer.startswith(shorter):
            best = max(best, 0.95)
        elif not exact and len(one) >= 4:
            ratio = difflib.SequenceMatcher(None, one, word).ratio()
            best = max(best, ratio if ratio >= 0.84 else 0.0)
    return best


def _words(text: str) -> list[str]:
    """Split into lower-case words; CamelCase and snake_case are split too."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return [part.lower() for part in re.findall(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*", spaced.replace("_", " "))]


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
