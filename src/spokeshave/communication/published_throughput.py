"""Published throughput: the bars of the TernGrad paper's Figure 5, images/s on 1 to 512 GPUs of two clusters.

Wen et al., NIPS 2017, figure 5, recovered from the vector bars of the authors' poster (Poster_Wen_NIPS2017.pdf):
reading errors are +-4 images/s up to 16 GPUs, beyond them +-42 (Ethernet) and +-99 (InfiniBand).
"""

from enum import Enum


class PaperCluster(Enum):
    """128 machines of four GPUs each: ETHERNET has GTX 1080 behind a PCI switch, INFINIBAND P100 with NVLink."""

    ETHERNET = "1 Gbit/s Ethernet"
    INFINIBAND = "100 Gbit/s InfiniBand"


class PaperNetwork(Enum):
    """The networks of Figure 5."""

    ALEXNET = "AlexNet"
    GOOGLENET = "GoogLeNet"
    VGGNET_A = "VggNet-A"


class Gradients(Enum):
    """What is exchanged: FLOAT32 gradients, or TERNARY ones."""

    FLOAT32 = "FP32"
    TERNARY = "TernGrad"


GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""GPUs of the bars."""

FIGURE_5: dict[PaperCluster, dict[PaperNetwork, dict[Gradients, tuple[int, ...]]]] = {
    PaperCluster.ETHERNET: {
        PaperNetwork.ALEXNET: {
            Gradients.FLOAT32: (394, 758, 1503, 719, 830, 1667, 3251, 6542, 13043, 25709),
            Gradients.TERNARY: (387, 768, 1536, 2189, 3459, 6833, 13626, 26959, 53126, 99417),
        },
        PaperNetwork.GOOGLENET: {
            Gradients.FLOAT32: (174, 348, 692, 850, 1283, 2500, 4917, 9709, 19000, 36542),
            Gradients.TERNARY: (174, 348, 696, 1231, 2326, 4459, 8793, 17167, 33167, 62542),
        },
        PaperNetwork.VGGNET_A: {
            Gradients.FLOAT32: (95, 167, 318, 49, 52, 126, 209, 417, 834, 1667),
            Gradients.TERNARY: (89, 174, 351, 322, 420, 876, 1667, 3251, 6417, 12584),
        },
    },
    PaperCluster.INFINIBAND: {
        PaperNetwork.ALEXNET: {
            Gradients.FLOAT32: (436, 867, 1734, 2787, 5301, 10349, 20403, 40707, 80920, 161548),
            Gradients.TERNARY: (427, 854, 1712, 3347, 6602, 13207, 26513, 52928, 105660, 211225),
        },
        PaperNetwork.GOOGLENET: {
            Gradients.FLOAT32: (194, 388, 776, 1501, 2972, 5914, 11827, 23556, 46916, 93931),
            Gradients.TERNARY: (194, 388, 772, 1540, 3071, 6110, 12221, 24543, 48985, 97973),
        },
        PaperNetwork.VGGNET_A: {
            Gradients.FLOAT32: (108, 207, 410, 405, 720, 1282, 2662, 5124, 10251, 20305),
            Gradients.TERNARY: (95, 194, 388, 716, 1410, 2760, 5520, 11139, 22176, 44254),
        },
    },
}
"""Cluster -> network -> gradients -> images/s, one for each of `GPUS`."""


def published(cluster: PaperCluster, network: PaperNetwork, gradients: Gradients, gpus: int) -> int:
    """One bar, images/s.

    Args:
        cluster: of the figure.
        network: of the figure.
        gradients: floats or ternary.
        gpus: one of `GPUS`.

    Example:
        >>> published(PaperCluster.ETHERNET, PaperNetwork.ALEXNET, Gradients.TERNARY, 8)
        2189
    """
    return FIGURE_5[cluster][network][gradients][GPUS.index(gpus)]


def published_speedup(cluster: PaperCluster, network: PaperNetwork, gpus: int) -> float:
    """Throughput of TernGrad over that of floats.

    Args:
        cluster: of the figure.
        network: of the figure.
        gpus: one of `GPUS`.

    Example:
        >>> round(published_speedup(PaperCluster.ETHERNET, PaperNetwork.ALEXNET, 8), 2)  # the paper: 3.04
        3.04
    """
    ternary = published(cluster, network, Gradients.TERNARY, gpus)
    return ternary / published(cluster, network, Gradients.FLOAT32, gpus)
