"""Figures of robustness from plain numbers, as parts of a record: curves, working zones, transfer, attacked images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.errors import InvalidArgument
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.report.heat_table import HeatTable
from spokeshave.report.image_gallery import Gallery, gallery
from spokeshave.threats.working_zones import WorkingZones

AXIS = "strength of attack, 1 is the range of a pixel"


@dataclass(frozen=True)
class AttackedNetwork:
    """Accuracies of one network, at the same strengths under each attack; empty where one was not run.

    Attributes:
        label: its name.
        strengths: of the attacks, rising.
        fgsm: drawn dashed.
        pgd: drawn solid.
        autoattack: drawn as points; at `judged`.
        judged: strengths of AutoAttack.
    """

    label: str
    strengths: Sequence[float]
    fgsm: Sequence[float] = ()
    pgd: Sequence[float] = ()
    autoattack: Sequence[float] = ()
    judged: Sequence[float] = field(default_factory=tuple)


def strength_chart(title: str, networks: Sequence[AttackedNetwork], axis: str = AXIS) -> Chart:
    """Accuracy against strength: PGD solid, FGSM dashed, AutoAttack as points, a colour for each network.

    Args:
        title: heading.
        networks: what was measured.
        axis: what the strengths are.

    Raises:
        InvalidArgument: where a network has another number of accuracies than of strengths.
    """
    curves = []
    for group, one in enumerate(networks):
        for name, strengths, accuracies in (
            ("PGD", one.strengths, one.pgd),
            ("FGSM", one.strengths, one.fgsm),
            ("AutoAttack", one.judged, one.autoattack),
        ):
            if len(accuracies) not in (0, len(strengths)):
                raise InvalidArgument(
                    f"{one.label}, {name}: expected {len(strengths)} accuracies, got {len(accuracies)}"
                )
            if accuracies:
                look = {"dashed": name == "FGSM", "points": name == "AutoAttack", "group": group}
                curves.append(Curve(f"{one.label}, {name}", list(strengths), list(accuracies), **look))
    return Chart(title, axis, "accuracy", curves, percent=True)


def zones_table(title: str, zones: WorkingZones) -> HeatTable:
    """Accuracy by strength of training and of attack, working zones framed.

    Args:
        title: heading.
        zones: accuracies and names.
    """
    return HeatTable(
        title,
        "trained at",
        list(zones.names),
        "attacked at",
        [f"{strength:.3g}" for strength in zones.strengths],
        [list(row) for row in zones.accuracies],
        zones.inside,
        f"in the working zone: at most {100 * zones.tolerance:g} % below the best of the column",
    )


def transfer_table(title: str, names: Sequence[str], accuracies: Float[Tensor, "sources targets"]) -> HeatTable:
    """Accuracy of each network on images that were made to fool each; frames mark those that fool themselves.

    Args:
        title: heading.
        names: of the networks.
        accuracies: 0..1; see `transfer_accuracies`.

    Raises:
        InvalidArgument: where it is not one row and one column for each network.
    """
    if tuple(accuracies.shape) != (len(names), len(names)) or not names:
        raise InvalidArgument(
            f"{title}: expected {len(names)} x {len(names)} accuracies, got {tuple(accuracies.shape)}"
        )
    own = [[row == column for column in range(len(names))] for row in range(len(names))]
    values = accuracies.tolist()
    return HeatTable(
        title, "made on", list(names), "tried on", list(names), values, own, "tried on what it was made on"
    )


def adversarial_gallery(
    title: str,
    rows: Mapping[str, tuple[Float[Tensor, "_ c h w"], Int64[Tensor, " _"]]],
    labels: Int64[Tensor, " n"],
    classes: Sequence[str] = (),
) -> Gallery:
    """Adversarial images, one row a strength, with the class that the network sees in each.

    Args:
        title: heading.
        rows: name of a row, such as its strength -> images in 0..1 and the classes that the network gives them.
        labels: the true classes.
        classes: names of the classes; their numbers by default.

    Raises:
        InvalidArgument: for rows of other lengths, or images that are none.
    """

    def name(number: int) -> str:
        return classes[number] if number < len(classes) else str(number)

    made = []
    for label, (images, seen) in rows.items():
        if not len(images) == len(seen) == len(labels):
            raise InvalidArgument(
                f"{title}, {label}: expected {len(labels)} images and classes, got {len(images)} and {len(seen)}"
            )
        made.append((label, images, [name(one) for one in seen.tolist()], (seen != labels).tolist()))
    return gallery(title, made, "taken for another class")
