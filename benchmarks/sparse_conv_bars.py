"""What the convolutions of `sparse_conv.py` have to reach, and what they reached; plain arithmetic on its cells.

The authors' own kernel (SkimCaffe's sconv, AVX-512) is not run here. How fast it is against DeepSparse was measured
before, in one run of both (EPYC Zen 5, 2 cores; SkimCaffe at 2f66b5a, DeepSparse 1.8; milliseconds a batch, minima);
ours against it is ours against DeepSparse, measured here, times that ratio. On another machine the ratio may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, mean

AUTHORS_MS: Mapping[tuple[str, int], tuple[float, float, float, float]] = {
    ("conv2_1", 1): (0.337, 0.174, 0.297, 0.189),
    ("conv2_2", 1): (0.223, 0.116, 0.221, 0.155),
    ("conv3", 1): (0.191, 0.120, 0.247, 0.182),
    ("conv4_1", 1): (0.065, 0.037, 0.096, 0.083),
    ("conv4_2", 1): (0.113, 0.080, 0.127, 0.087),
    ("conv5_1", 1): (0.071, 0.060, 0.088, 0.078),
    ("conv5_2", 1): (0.104, 0.056, 0.107, 0.069),
    ("conv2_1", 16): (5.70, 2.94, 6.05, 3.11),
    ("conv2_2", 16): (3.86, 2.04, 5.35, 2.87),
    ("conv3", 16): (3.27, 1.66, 4.53, 2.07),
    ("conv4_1", 16): (1.05, 0.538, 1.57, 0.619),
    ("conv4_2", 16): (1.92, 0.924, 1.93, 0.963),
    ("conv5_1", 16): (1.11, 0.574, 1.19, 0.639),
    ("conv5_2", 16): (1.71, 0.845, 1.32, 0.735),
    ("conv2_1", 64): (22.12, 11.07, 23.78, 13.97),
    ("conv2_2", 64): (15.06, 7.52, 19.53, 11.80),
    ("conv3", 64): (12.98, 6.34, 18.25, 9.81),
    ("conv4_1", 64): (4.49, 2.24, 6.34, 3.62),
    ("conv4_2", 64): (7.64, 3.84, 7.85, 4.91),
    ("conv5_1", 64): (4.86, 2.40, 6.77, 3.61),
    ("conv5_2", 64): (7.10, 3.45, 7.79, 4.37),
}
"""(layer, images) -> the authors' kernel on one and two threads, DeepSparse on one and two; weights `l1_0.56256`."""

RATE_AT = {1: 0.42, 16: 0.55, 64: 0.55}
"""Images -> smallest share of the FMA peak, on the nonzeros alone, one thread."""
FASTER_AT = {1: 1.25, 16: 1.7}
"""Images -> times faster than the better of DeepSparse and the authors' kernel."""
SCALING = 1.85
SSL_LAYERS, SSL_STACK = 5.1, 3.13
"""Table 4 of SSL: mean speedup of the five layers, and of their summed times (its 5.1x, and 3.13x as counted later)."""


@dataclass(frozen=True)
class Cell:
    """One layer at one batch size on some threads.

    Attributes:
        weights: the set.
        layer: such as conv4_2.
        batch: images.
        threads: of every contestant.
        nonzeros: of the layer.
        flops: on the nonzeros, a call; a multiply-add counts as 2, taps on padding count too.
        density: share of nonzero weights.
        peak_share: of the FMA peak of all threads, on the nonzeros.
        fastest_share: the same for the fastest call, of the highest peak that was seen.
        seconds: contestant -> median seconds a call, by the clock that judges this number of threads.
        wall_s: contestant -> median wall seconds.
        least_wall_s: contestant -> the fastest call by the wall.
        fastest_s: contestant -> the fastest call, by the clock that judges.
        ratio: contestant -> (its time / ours, distance between the quartiles).
        best_dense: contestant that ignores zeros and is the fastest.
        problems: contestant -> why it did not take part.
    """

    weights: str
    layer: str
    batch: int
    threads: int
    nonzeros: int
    flops: float
    density: float
    peak_share: float
    fastest_share: float
    seconds: Mapping[str, float]
    wall_s: Mapping[str, float]
    least_wall_s: Mapping[str, float]
    fastest_s: Mapping[str, float]
    ratio: Mapping[str, tuple[float, float]]
    best_dense: str | None
    problems: Mapping[str, str]


@dataclass(frozen=True)
class Bar:
    """What is asked for, and what was measured.

    Attributes:
        what: in words.
        wanted: at least so much.
        got: None where it was not measured.
        at_most: the other way round: what is wanted is a limit.
    """

    what: str
    wanted: float
    got: float | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """In one word."""
        if self.got is None:
            return "not measured"
        return "met" if (self.got <= self.wanted if self.at_most else self.got >= self.wanted) else "missed"


def against_authors(cell: Cell) -> float | None:
    """Times faster than the authors' kernel, derived; None for what was not published.

    Example:
        >>> ratio = {"deepsparse": (2.0, 0.1)}
        >>> cell = Cell("l1_0.56256", "conv2_1", 16, 1, 1, 1.0, 1.0, 0.5, 0.5, {}, {}, {}, {}, ratio, None, {})
        >>> round(against_authors(cell), 2)  # 2 x 5.70 / 6.05
        1.88
    """
    known = AUTHORS_MS.get((cell.layer, cell.batch))
    if known is None or "deepsparse" not in cell.ratio or cell.weights != "l1_0.56256" or cell.threads > 2:
        return None
    authors, deepsparse = known[cell.threads - 1], known[cell.threads + 1]
    return cell.ratio["deepsparse"][0] * authors / deepsparse


def against_better(cell: Cell) -> float | None:
    """Times faster than the faster of DeepSparse and the authors' kernel."""
    authors = against_authors(cell)
    return None if authors is None else min(authors, cell.ratio["deepsparse"][0])


def against_dense(cell: Cell) -> float | None:
    """Times faster than the fastest contestant that ignores zeros."""
    return None if cell.best_dense is None else cell.ratio[cell.best_dense][0]


def fastest_against(cell: Cell, names: Sequence[str]) -> float | None:
    """The fastest call of any of these / the fastest of ours; None where none took part."""
    others = [cell.fastest_s[name] for name in names if name in cell.fastest_s]
    return min(others) / cell.fastest_s["spokeshave"] if others else None


def middle(values: Sequence[float | None]) -> float | None:
    """Geometric mean; None where a value is missing, or there is none."""
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known and len(known) == len(values) else None


def scaling(cells: Sequence[Cell]) -> dict[tuple[str, str, int], float]:
    """(weights, layer, images) -> wall time of ours on one thread / on two, of the fastest calls."""
    alone = {(c.weights, c.layer, c.batch): c.least_wall_s["spokeshave"] for c in cells if c.threads == 1}
    both = {(c.weights, c.layer, c.batch): c.least_wall_s["spokeshave"] for c in cells if c.threads == 2}
    return {key: alone[key] / both[key] for key in alone if key in both}


def ssl_table(cells: Sequence[Cell]) -> tuple[float, float] | None:
    """Mean speedup over the five layers against the best dense engine of each, and that of their summed times."""
    dense: dict[str, float] = {}
    ours: dict[str, float] = {}
    for cell in cells:
        if cell.best_dense is None:
            return None
        name = cell.layer.split("_")[0]
        dense[name] = dense.get(name, 0) + cell.seconds[cell.best_dense]
        ours[name] = ours.get(name, 0) + cell.seconds["spokeshave"]
    if set(dense) != {f"conv{number}" for number in range(1, 6)}:
        return None
    return mean(dense[name] / ours[name] for name in dense), sum(dense.values()) / sum(ours.values())


def bars(cells: Sequence[Cell]) -> list[Bar]:
    """Every bar that these cells speak about."""
    found = []
    conv25 = [cell for cell in cells if cell.weights == "l1_0.56256" and cell.layer != "conv1"]
    for batch in sorted({cell.batch for cell in conv25}):
        alone = [cell for cell in conv25 if cell.batch == batch and cell.threads == 1]
        if alone and batch in RATE_AT:
            share = middle([cell.peak_share for cell in alone])
            found.append(Bar(f"share of the FMA peak, batch {batch}, 1 thread", RATE_AT[batch], share))
        for threads in sorted({cell.threads for cell in conv25}):
            some = [cell for cell in conv25 if cell.batch == batch and cell.threads == threads]
            where = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
            for what, values in (
                ("DeepSparse", [cell.ratio.get("deepsparse", (None, 0))[0] for cell in some]),
                ("the authors' kernel (derived)", [against_authors(cell) for cell in some]),
            ):
                least = min(values, default=None) if all(v is not None for v in values) else None  # type: ignore[type-var]
                found.append(Bar(f"times faster than {what} on the worst layer, {where}", 1.0, least))
            if batch in FASTER_AT and threads == 1:
                better = middle([against_better(cell) for cell in some])
                found.append(Bar(f"times faster than the better of the two, {where}", FASTER_AT[batch], better))
        scaled = [value for (_, _, images), value in scaling(conv25).items() if images == batch]
        if scaled:
            found.append(Bar(f"two threads against one, batch {batch}", SCALING, middle(scaled)))
    ssl = [cell for cell in cells if cell.weights == "ssl_0.54214" and cell.threads == 1]
    for batch in sorted({cell.batch for cell in ssl}):
        both = ssl_table([cell for cell in ssl if cell.batch == batch]) or (None, None)
        found.append(Bar(f"SSL: mean speedup of conv1-5 over the best dense, batch {batch}", SSL_LAYERS, both[0]))
        found.append(Bar(f"SSL: speedup of their summed times, batch {batch}", SSL_STACK, both[1]))
    return found
