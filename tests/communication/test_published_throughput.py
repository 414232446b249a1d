"""The bars say what the paper's text says of them."""

import pytest

from spokeshave.communication.published_throughput import (
    FIGURE_5,
    GPUS,
    Gradients,
    PaperCluster,
    PaperNetwork,
    published,
    published_speedup,
)


def test_every_cluster_network_and_gradient_has_a_bar_for_each_number_of_gpus():
    assert set(FIGURE_5) == set(PaperCluster)
    for cluster in PaperCluster:
        assert set(FIGURE_5[cluster]) == set(PaperNetwork)
        for network in PaperNetwork:
            assert {len(bars) for bars in FIGURE_5[cluster][network].values()} == {len(GPUS)}
            assert set(FIGURE_5[cluster][network]) == set(Gradients)


def test_claims_of_the_text():
    assert published_speedup(PaperCluster.ETHERNET, PaperNetwork.ALEXNET, 8) == pytest.approx(3.04, abs=0.005)
    assert published_speedup(PaperCluster.INFINIBAND, PaperNetwork.VGGNET_A, 512) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("cluster", list(PaperCluster))
def test_throughput_grows_with_the_machines_but_for_the_border_of_the_first(cluster):
    for network in PaperNetwork:
        for gradients in Gradients:
            bars = [published(cluster, network, gradients, gpus) for gpus in GPUS]
            assert bars[3:] == sorted(bars[3:]) and bars[:3] == sorted(bars[:3])
