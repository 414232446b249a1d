import subprocess
import sys
from pathlib import Path

import pytest
import sparse_networks
from sparse_networks import ALEXNET, Setting, bars, fastest


def setting(network: str, batch: int = 16, **ratios: float) -> Setting:
    return Setting(
        network, batch, 1, {}, {}, {}, {name: (value, 0.0) for name, value in ratios.items()}, {}, {}, "torch"
    )


def test_the_fastest_graph_counts() -> None:
    assert fastest({"a": 2.0, "b": 1.0, "c": "crashed"}) == "b"
    assert fastest({"c": "crashed"}) is None


def test_alexnet_is_held_to_the_best_peer_and_trained_networks_to_the_best_dense() -> None:
    (bar,) = bars([setting(ALEXNET, torch=9.0, deepsparse=2.5, openvino=1.5, onnxruntime=3.0)])
    assert (bar.got, bar.verdict) == (1.5, "missed")
    (bar,) = bars([setting(ALEXNET, torch=9.0, openvino=3.0)])
    assert bar.verdict == "not measured"
    (bar,) = bars([setting("convnet", torch=2.0, openvino=1.5)])
    assert (bar.got, bar.verdict) == (2.0, "met")
    assert bars([setting("convnet-synthetic", torch=2.0)]) == []


def test_the_benchmark_runs_without_peers(tmp_path: Path) -> None:
    script = Path(sparse_networks.__file__)
    command = [sys.executable, str(script), "--quick", "--batch-sizes", "1", "--only-contestants", "torch"]
    done = subprocess.run([*command, "--peers", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "convnet-synthetic batch 1 threads 1: ms spokeshave" in done.stdout


def test_a_network_is_named_with_its_file() -> None:
    with pytest.raises(SystemExit, match="NAME=FILE"):
        list(sparse_networks.networks(sparse_networks.Options(networks=("lenet=a",), skip_alexnet=True)))
