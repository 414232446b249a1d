import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import shaped_training
from exchange_contestants import BFLOAT16, CONTESTANTS, PLAIN
from network_namespaces import why_not
from shaped_training import Options, check, main, measure, started
from trained_networks import NETWORKS, network_and_images

TINY = Options(networks=("tiny",), contestants=(PLAIN, BFLOAT16, "alltoall"), steps=2, rounds=1)


def test_formulas_of_the_contestants() -> None:
    # Two ranks each send half of the gradients twice: to be added up, and the sums.
    assert CONTESTANTS[PLAIN].sent_bytes([100, 50], 2) == 2 * 75 * 4
    assert CONTESTANTS[PLAIN].sent_bytes([100], 4) == 2 * 75 * 4
    assert CONTESTANTS[BFLOAT16].sent_bytes([100], 4) == 2 * 75 * 2
    # To three others: codes of 2 bits, and the bias in floats. Before it a scaler, all-reduced.
    assert CONTESTANTS["allgather"].sent_bytes([4096, 8], 4) == 3 * (4096 / 4 + 8 * 4) + 2 * 3 / 4 * 4
    # Codes of three quarters to who adds them, sums of one's own quarter (0..8: 4 bits) to three others.
    assert CONTESTANTS["alltoall"].sent_bytes([4096], 4) == 3 * 1024 / 4 + 3 * 1024 / 2 + 2 * 3
    for ranks, chosen in ((2, "allgather"), (3, "alltoall"), (8, "alltoall")):
        assert CONTESTANTS["auto"].sent_bytes([4096], ranks) == CONTESTANTS[chosen].sent_bytes([4096], ranks)


def test_networks_are_alike_and_images_are_not() -> None:
    sizes = {}
    for name in NETWORKS:
        (first, images, _), (second, others, _) = (network_and_images(name, 2, 0, rank) for rank in (0, 1))
        assert first(images).shape == (2, 10)
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(one.equal(other) for one, other in pairs) and not images.equal(others)
        sizes[name] = sum(weight.numel() for weight in first.parameters())
    assert sizes["mlp"] == 1_796_010 and sizes["mlp-large"] == 5_592_010 and sizes["lenet"] == 431_080
    assert sizes["alexnet-like"] > 5_000_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(networks=("vgg",)), "--networks: expected some of mlp"),
        (Options(contestants=("smoke-signals",)), "--contestants: expected some of fp32"),
        (Options(rates=("quick",)), "--rates: expected a rate such as 100mbit"),
        (Options(workers=(1,)), "--workers: expected at least 2, got 1"),
        (Options(workers=()), "--workers: expected at least 2"),
        (Options(rounds=0), "--rounds"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: Options, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        check(options)


def test_real_ranks_send_what_the_formulas_say() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with started(TINY, "tiny", 2, "100mbit") as crew:
        setting = measure(TINY, "tiny", 2, "100mbit", crew)
    assert setting.parameters == 784 * 400 + 400 + 400 * 10 + 10
    for name, bytes_each in ((PLAIN, 4), (BFLOAT16, 2)):
        one = setting.outcomes[name]
        assert one.payload_bytes == pytest.approx(bytes_each * setting.parameters, rel=0.02)
        assert one.sent_bytes == pytest.approx(one.received_bytes, rel=0.02)
        assert one.sent_bytes > 1.03 * one.payload_bytes, "a header of 66 bytes for each 1448 of payload"
    assert setting.outcomes[PLAIN].faster_than.keys() == {BFLOAT16}
    ternary = setting.outcomes["alltoall"]
    # Codes of 2 bits and sums of 3 for half of the gradients; blocks are filled up, rounds have messages of their own.
    assert ternary.payload_bytes == pytest.approx((2 + 3) / 8 / 2 * setting.parameters, rel=0.03)
    assert ternary.counted_bytes == pytest.approx(ternary.payload_bytes, rel=0.03)
    assert shaped_training.table(setting).row_count == 3


def test_without_namespaces_it_trains_over_loopback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shaped_training, "why_not", lambda: "there is no root")
    main(replace(TINY, contestants=(PLAIN,)))
    shown = capsys.readouterr().out
    assert "no shaped network: there is no root" in shown and "loopback, no limit" in shown
    assert "1.272" in shown, "4 bytes of each of 318010 parameters"


def test_a_failing_run_ends_with_the_reason() -> None:
    command = [sys.executable, shaped_training.__file__, "--quick", "--timeout-s", "0.01"]
    before = set(Path("/run/netns").glob("spokeshave-*"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no answer from rank" in done.stderr
    assert set(Path("/run/netns").glob("spokeshave-*")) <= before
