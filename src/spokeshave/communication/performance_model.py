"""Performance model of a training step over our own wires: when ternary gradients pay off, and below which bandwidth.

Latency and bandwidth (Hockney's alpha and beta), DDP's overlap of communication and backward, the codec's time:

    T_step = T_fwd + max(T_bwd, T_first bucket + T_comm) + (1 - overlapped) T_codec
    T_comm = alpha * messages(N) + 8 * bytes(N) / bandwidth

TernGrad, Wen et al., NIPS 2017, has a model of its own, after Yan et al., KDD 2015: paper_performance_model.
Departs from the paper: an exchange of codes has rounds, a codec that takes time and wider sums on the way back, and
communication overlaps the backward pass, for floats too.
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.wire_bytes import Exchange, GradientSize, crossing_bytes, sent_bytes
from spokeshave.errors import InvalidArgument

_SLOWEST_BIT_PER_S, _FASTEST_BIT_PER_S = 1e2, 1e15
_HALVINGS = 100


class Collective(Enum):
    """What a round of an exchange asks of the backend."""

    ALL_REDUCE = "all-reduce"
    ALL_GATHER = "all-gather"
    ALL_TO_ALL = "all-to-all"


class Order(Enum):
    """How messages of a collective follow one another: RING as gloo does it, TREE as NCCL does for small messages."""

    RING = "ring"
    TREE = "tree"


@dataclass(frozen=True)
class Link:
    """A network between machines, or, where there is only one machine, between its devices.

    Attributes:
        bit_per_s: both ways at the same time, positive.
        latency_s: alpha, of one message, at least 0.
    """

    bit_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.bit_per_s < math.inf or not 0 <= self.latency_s < math.inf:
            raise InvalidArgument(f"expected a bandwidth above 0 bit/s and a latency of at least 0 s, got {self}")


@dataclass(frozen=True)
class Layout:
    """Where the workers are.

    Attributes:
        machines: at least 1.
        devices: workers on each machine, at least 1; between them, traffic counts as free where machines are several.
    """

    machines: int
    devices: int = 1

    def __post_init__(self) -> None:
        if self.machines < 1 or self.devices < 1:
            raise InvalidArgument(f"expected at least one machine with at least one worker, got {self}")

    @property
    def workers(self) -> int:
        """N."""
        return self.machines * self.devices


@dataclass(frozen=True)
class StepProfile:
    """What a worker computes in a step, and with what.

    Attributes:
        forward_s: forward pass and loss.
        backward_s: whole backward pass.
        first_bucket_s: of the backward pass, until gradients for the first message are there.
        images: of a worker's batch.
        size: of the gradient.
        buckets: that DDP exchanges one after another.
    """

    forward_s: float
    backward_s: float
    first_bucket_s: float
    images: int
    size: GradientSize
    buckets: int = 1

    def __post_init__(self) -> None:
        if min(self.forward_s, self.first_bucket_s) < 0 or self.first_bucket_s > self.backward_s:
            raise InvalidArgument(f"expected times of at least 0 s, the first bucket's within backward's, got {self}")
        if self.images < 1 or self.buckets < 1:
            raise InvalidArgument(f"expected at least one image and one bucket, got {self}")


@dataclass(frozen=True)
class CodecCost:
    """What it takes to change a gradient for the wire and back.

    Attributes:
        encode_s: an element's code, its part of the layer's statistics included.
        sum_s: a code of one worker, added to those of the others.
        decode_s: a code, or a sum, made a float again.
        bfloat16_s: an element to bfloat16 and back.
        overlapped: share of it, 0..1, that hides behind other work.
    """

    encode_s: float
    sum_s: float
    decode_s: float
    bfloat16_s: float = 0.0
    overlapped: float = 0.0

    def __post_init__(self) -> None:
        if min(self.encode_s, self.sum_s, self.decode_s, self.bfloat16_s) < 0 or not 0 <= self.overlapped <= 1:
            raise InvalidArgument(f"expected times of at least 0 s, of which 0..1 overlap, got {self}")

    def seconds(self, exchange: Exchange, size: GradientSize, workers: int) -> float:
        """Seconds of a step, hidden or not.

        Args:
            exchange: which; an all-gather decodes the codes of every worker, an all-to-all sums a share of all codes.
            size: of the gradient.
            workers: N.

        Example:
            >>> cost = CodecCost(encode_s=3.0, sum_s=2.0, decode_s=1.0, bfloat16_s=0.5)
            >>> [cost.seconds(exchange, GradientSize(1, floats=1), 4) for exchange in Exchange]
            [0.0, 1.0, 7.0, 6.0, 4.0]
        """
        if not exchange.ternary:
            return size.elements * self.bfloat16_s if exchange is Exchange.BFLOAT16 else 0.0
        summed_s = self.sum_s if exchange is Exchange.ALLTOALL else 0.0
        decoded = workers if exchange is Exchange.ALLGATHER else 1
        return size.ternary * (self.encode_s + summed_s + decoded * self.decode_s)


@dataclass(frozen=True)
class Cluster:
    """Everything but the computing.

    Attributes:
        layout: of the workers.
        link: between machines, or between the devices of the only one.
        codec: of this machine.
        pack: of the codes.
        order: of messages.
    """

    layout: Layout
    link: Link
    codec: CodecCost
    pack: Pack = Pack.TWO_BIT
    order: Order = Order.RING


@dataclass(frozen=True)
class Prediction:
    """A step, as predicted.

    Attributes:
        exchange: which.
        workers: N.
        bytes_sent: by a worker.
        communication_s: of all of it, hidden behind the backward pass or not.
        codec_s: of all of it, hidden or not.
        step_s: of the step.
        images_per_s: of all workers together.
    """

    exchange: Exchange
    workers: int
    bytes_sent: float
    communication_s: float
    codec_s: float
    step_s: float
    images_per_s: float


def rounds(exchange: Exchange, floats: bool = False) -> tuple[Collective, ...]:
    """Collectives of one bucket, in order.

    Args:
        exchange: which.
        floats: some of the gradient stays floats, which only LANES sends by themselves.

    Example:
        >>> [collective.value for collective in rounds(Exchange.ALLTOALL)]  # scalers, codes, sums
        ['all-reduce', 'all-to-all', 'all-gather']
    """
    scalers = (Collective.ALL_REDUCE,) if exchange.ternary else ()
    if exchange is Exchange.ALLGATHER:
        return (*scalers, Collective.ALL_GATHER)
    if exchange is Exchange.ALLTOALL:
        return (*scalers, Collective.ALL_TO_ALL, Collective.ALL_GATHER)
    again = floats and exchange is Exchange.LANES
    return (*scalers, *(Collective.ALL_REDUCE,) * (2 if again else 1))


def messages(collective: Collective, workers: int, order: Order = Order.RING) -> int:
    """h(N): messages that wait for one another.

    Args:
        collective: which; an all-to-all sends all at once.
        workers: N.
        order: of messages.

    Example:
        >>> [messages(collective, 8) for collective in Collective], messages(Collective.ALL_REDUCE, 8, Order.TREE)
        ([14, 7, 1], 6)
    """
    if workers == 1:
        return 0
    if collective is Collective.ALL_TO_ALL:
        return 1
    once = workers - 1 if order is Order.RING else (workers - 1).bit_length()
    return 2 * once if collective is Collective.ALL_REDUCE else once


def communication_seconds(exchange: Exchange, profile: StepProfile, cluster: Cluster) -> float:
    """T_comm.

    Args:
        exchange: which.
        profile: of the model.
        cluster: around it.
    """
    layout, link = cluster.layout, cluster.link
    workers = layout.workers
    followed = sum(messages(each, workers, cluster.order) for each in rounds(exchange, profile.size.floats > 0))
    if layout.machines > 1:
        passing = crossing_bytes(exchange, profile.size, layout.machines, layout.devices, cluster.pack)
    else:
        passing = sent_bytes(exchange, profile.size, workers, cluster.pack)
    return profile.buckets * followed * link.latency_s + 8 * passing / link.bit_per_s


def predict(exchange: Exchange, profile: StepProfile, cluster: Cluster) -> Prediction:
    """Predict a step.

    Args:
        exchange: which.
        profile: of the model.
        cluster: around it; one worker exchanges nothing, in float32 and otherwise.

    Example:
        >>> profile = StepProfile(0.1, 0.2, 0.0, images=32, size=GradientSize(25_000_000))
        >>> cluster = Cluster(Layout(2), Link(1e9), CodecCost(0.0, 0.0, 0.0))
        >>> step = predict(Exchange.FLOAT32, profile, cluster)  # 100 MB at 1 Gbit/s: 0.8 s; 0.1 s forward
        >>> round(step.step_s, 6), round(step.images_per_s, 3)
        (0.9, 71.111)
    """
    workers = cluster.layout.workers
    alone = workers == 1
    communication_s = 0.0 if alone else communication_seconds(exchange, profile, cluster)
    codec_s = 0.0 if alone else cluster.codec.seconds(exchange, profile.size, workers)
    backward_s = max(profile.backward_s, profile.first_bucket_s + communication_s)
    step_s = profile.forward_s + backward_s + (1 - cluster.codec.overlapped) * codec_s
    sent = 0.0 if alone else sent_bytes(exchange, profile.size, workers, cluster.pack)
    throughput = workers * profile.images / step_s if step_s else math.inf
    return Prediction(exchange, workers, sent, communication_s, codec_s, step_s, throughput)


def at_bandwidth(cluster: Cluster, bit_per_s: float) -> Cluster:
    """The same cluster with a link of another bandwidth."""
    return replace(cluster, link=replace(cluster.link, bit_per_s=bit_per_s))


def at_workers(cluster: Cluster, workers: int) -> Cluster:
    """A like cluster with more or fewer workers: machines are filled one after another.

    Args:
        cluster: whose machines and link are taken.
        workers: a multiple of a machine's, or fewer than those.

    Example:
        >>> at_workers(Cluster(Layout(2, 4), Link(1e9), CodecCost(0.0, 0.0, 0.0)), 16).layout
        Layout(machines=4, devices=4)
    """
    devices = math.gcd(workers, cluster.layout.devices)
    return replace(cluster, layout=Layout(workers // devices, devices))


def break_even_bit_per_s(exchange: Exchange, against: Exchange, profile: StepProfile, cluster: Cluster) -> float | None:
    """The bandwidth below which one exchange is faster than another, everything else as it is.

    Args:
        exchange: the one that sends less, such as ALLTOALL.
        against: FLOAT32 or BFLOAT16.
        profile: of the model.
        cluster: its own bandwidth is not used.

    Returns:
        bit/s; None where it is not faster on any link of 100 bit/s and more, infinity where on every.

    Example:
        >>> profile = StepProfile(0.0, 0.0, 0.0, images=1, size=GradientSize(1_000_000))
        >>> cluster = Cluster(Layout(2), Link(1e9), CodecCost(encode_s=2.4e-9, sum_s=0.0, decode_s=1e-9))
        >>> found = break_even_bit_per_s(Exchange.ALLGATHER, Exchange.FLOAT32, profile, cluster)
        >>> round(found / 1e9, 3)  # 30 bits an element less, 4.4 ns an element more
        6.818
    """

    def gained_s(bit_per_s: float) -> float:
        there = at_bandwidth(cluster, bit_per_s)
        return predict(against, profile, there).step_s - predict(exchange, profile, there).step_s

    low, high = _SLOWEST_BIT_PER_S, _FASTEST_BIT_PER_S
    if gained_s(low) <= 0:
        return None
    if gained_s(high) > 0:
        return math.inf
    # Over seconds a bit, the gain falls at most once before it rises: it turns positive in one place.
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gained_s(middle) > 0 else (low, middle)
    return low


def best_ternary(profile: StepProfile, cluster: Cluster) -> Prediction:
    """The ternary exchange with the shortest step.

    Args:
        profile: of the model.
        cluster: around it.
    """
    return min((predict(each, profile, cluster) for each in Exchange if each.ternary), key=lambda one: one.step_s)
