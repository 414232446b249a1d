"""The TernGrad paper's performance model: throughput of a GPU cluster, and what its Figure 5 tells about it.

Wen et al., NIPS 2017, figure 5 and appendix, after Yan et al., KDD 2015. Weak scaling over i machines of j GPUs,
K images each, |g| bytes of gradient:

    T = T(1, 1, K) + c M + |g| log2(j) / C_gwd + [i > 1] (2 |g| / C_cwd + n(i) |g| / C_nwd + 2 (i - 1) l),
    throughput = i j K / T

Departs from the paper: its appendix was not at hand. `Growth.LOGARITHM` is its formula as it is usually told, a
reconstruction: n(i) = log2(i), and the latency so often. It misses the bars of many machines by up to 3.2 times. What
the bars show is `Growth.TWO_ROUNDS` on Ethernet, n(i) = min(log2(i), 2), and `Growth.RING` on InfiniBand,
n(i) = 2 (i - 1) / i; their constants below were fitted to the bars, and are not the authors'.
"""

import math
from dataclasses import dataclass
from enum import Enum

from spokeshave.communication.published_throughput import Gradients, PaperCluster, PaperNetwork, published
from spokeshave.errors import InvalidArgument


class Growth(Enum):
    """How often the whole gradient passes a machine's link: n(i) for i machines."""

    LOGARITHM = "log2(i)"
    TWO_ROUNDS = "min(log2(i), 2)"
    RING = "2 (i - 1) / i"


@dataclass(frozen=True)
class ClusterConstants:
    """What was fitted to the bars of a cluster.

    Attributes:
        link_bit_per_s: 8 C_nwd, of the network between two machines, as it was reached.
        latency_s: l, of one message; a ring of i machines sends 2 (i - 1) one after another.
        gpu_byte_per_s: C_gwd, between two GPUs of a machine.
        growth: of the traffic with the machines.
        host_byte_per_s: C_cwd, between a GPU and the memory that the network sends from, once each way.
        codec_s_per_element: c, to make ternary codes of a gradient and gradients of codes; nothing for floats.
        gpus_per_machine: j at most.
    """

    link_bit_per_s: float
    latency_s: float
    gpu_byte_per_s: float
    growth: Growth
    host_byte_per_s: float = 8e9
    codec_s_per_element: float = 1.75e-10
    gpus_per_machine: int = 4


@dataclass(frozen=True)
class NetworkFacts:
    """What a network asks of the cluster.

    Attributes:
        elements: M, of its gradient.
        float_elements: of its last layer, which stays in float32.
        images_per_gpu: K, from the figure's caption.
        traffic_share: of the bytes, the share that the bars show.
        why_traffic_share: the reason where that is not all of them.
    """

    elements: int
    float_elements: int
    images_per_gpu: int
    traffic_share: float = 1.0
    why_traffic_share: str = ""


CLUSTERS: dict[PaperCluster, ClusterConstants] = {
    PaperCluster.ETHERNET: ClusterConstants(0.95e9, 2.4e-4, 14.5e9, Growth.TWO_ROUNDS),
    PaperCluster.INFINIBAND: ClusterConstants(23.5e9, 0.0, 60e9, Growth.RING),
}
"""Fitted: seven numbers, of which the host's and the codec's hold for both clusters, and all for every network."""

NETWORKS: dict[PaperNetwork, NetworkFacts] = {
    PaperNetwork.ALEXNET: NetworkFacts(
        60_970_000,
        4_097_000,
        128,
        0.5,
        "on both clusters AlexNet's bars lose half of the time to the network that its bytes ask for beside the other "
        "two networks, as if two bytes stood for each float; 256 images a GPU would explain it too, but for the "
        "latency, which then would be twice that of the others",
    ),
    # As TF-slim's inception_v1, which the authors trained: it has no auxiliary heads, and 3x3 for 5x5 filters.
    PaperNetwork.GOOGLENET: NetworkFacts(6_624_904, 1_025_000, 64),
    PaperNetwork.VGGNET_A: NetworkFacts(132_860_000, 4_097_000, 32),
}

_CODE_BITS = 2
"""In both directions: the bars do not show the wider sums that a server sends back."""


def gradient_bytes(facts: NetworkFacts, gradients: Gradients) -> float:
    """|g|: float32, or two bits both ways but for the last layer.

    Args:
        facts: of the network.
        gradients: floats or ternary.

    Example:
        >>> facts = NETWORKS[PaperNetwork.VGGNET_A]
        >>> ratio = gradient_bytes(facts, Gradients.FLOAT32) / gradient_bytes(facts, Gradients.TERNARY)
        >>> round(ratio, 2)  # the last layer keeps it from 16
        10.94
    """
    if gradients is Gradients.FLOAT32:
        return 4.0 * facts.elements * facts.traffic_share
    ternary = facts.elements - facts.float_elements
    return (4.0 * facts.float_elements + _CODE_BITS / 8 * ternary) * facts.traffic_share


def passes(growth: Growth, machines: int) -> float:
    """n(i): how often the whole gradient passes a machine's link.

    Args:
        growth: which law.
        machines: i, at least 1.

    Example:
        >>> [passes(growth, 8) for growth in Growth]
        [3.0, 2.0, 1.75]
    """
    if growth is Growth.RING:
        return 2 * (machines - 1) / machines
    rounds = math.log2(machines)
    return min(rounds, 2.0) if growth is Growth.TWO_ROUNDS else rounds


def step_seconds(
    cluster: PaperCluster, network: PaperNetwork, gradients: Gradients, gpus: int, growth: Growth | None = None
) -> float:
    """Seconds of one step.

    Args:
        cluster: of the figure.
        network: of the figure.
        gradients: floats or ternary.
        gpus: i j, at least 1; more than a machine has must fill machines.
        growth: law of the traffic; none for the one that the cluster's bars show.

    Raises:
        InvalidArgument: for no GPUs, or machines that are not filled.
    """
    constants, facts = CLUSTERS[cluster], NETWORKS[network]
    inside = min(gpus, constants.gpus_per_machine)
    if gpus < 1 or gpus % inside:
        whole = constants.gpus_per_machine
        raise InvalidArgument(f"expected 1 to {whole} GPUs or whole machines of {whole}, got {gpus}")
    machines, growth = gpus // inside, growth or constants.growth
    size = gradient_bytes(facts, gradients)
    # The figure's float bar of one GPU stands for the profile of a GPU that the model starts from.
    taken_s = facts.images_per_gpu / published(cluster, network, Gradients.FLOAT32, 1)
    taken_s += constants.codec_s_per_element * facts.elements if gradients is Gradients.TERNARY else 0.0
    taken_s += size * math.log2(inside) / constants.gpu_byte_per_s
    if machines > 1:
        messages = math.log2(machines) if growth is Growth.LOGARITHM else 2 * (machines - 1)
        taken_s += 2 * size / constants.host_byte_per_s + messages * constants.latency_s
        taken_s += passes(growth, machines) * size * 8 / constants.link_bit_per_s
    return taken_s


def images_per_s(
    cluster: PaperCluster, network: PaperNetwork, gradients: Gradients, gpus: int, growth: Growth | None = None
) -> float:
    """Throughput of all GPUs together; arguments and errors as of `step_seconds`."""
    return gpus * NETWORKS[network].images_per_gpu / step_seconds(cluster, network, gradients, gpus, growth)


def speedup(cluster: PaperCluster, network: PaperNetwork, gpus: int, growth: Growth | None = None) -> float:
    """Throughput of TernGrad over that of floats; arguments and errors as of `step_seconds`.

    Example:
        >>> round(speedup(PaperCluster.ETHERNET, PaperNetwork.ALEXNET, 8), 1)  # the paper: 3.04
        3.0
    """
    floats = step_seconds(cluster, network, Gradients.FLOAT32, gpus, growth)
    return floats / step_seconds(cluster, network, Gradients.TERNARY, gpus, growth)
