"""What TensorBoard reads back is what was logged."""

import pytest

from spokeshave.tensorboard_log import tensorboard_log

pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    row = {"train_loss": 0.5, "validation_accuracy": 0.75, "validation_loss": 0.25, "learning_rate": 0.125, "step": 10}
    tensorboard_log(tmp_path, "ssl")(row | {"sparsity": {"conv1": {"filters": 0.5}}})
    found = EventAccumulator(str(tmp_path)).Reload()
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert scalars["ssl/train_loss"] == [(10, 0.5)] and scalars["ssl/validation_accuracy"] == [(10, 0.75)]
    assert scalars["ssl/zero_filters/conv1"] == [(10, 0.5)] and len(scalars) == 5
