"""Progress prints a line an epoch where no person looks on."""

from spokeshave.progress import Progress


def test_an_epoch_is_one_line_with_its_sparse_layers(capsys):
    row = {"epoch": 2, "train_loss": 0.5, "validation_accuracy": 0.75}
    row["sparsity"] = {"conv1": {"filters": 0.5, "shapes": 0.1}, "conv2": {"filters": 0.0, "shapes": 0.0}}
    with Progress("ssl", 10) as progress:
        progress.advance(0.5)
        progress.row(row)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines == ["ssl  epoch   2  loss 0.5000  validation 75.00%  zero groups: conv1 50%"]


def test_quiet_prints_nothing(capsys):
    with Progress("ssl", 10, quiet=True) as progress:
        progress.row({"epoch": 1, "train_loss": 0.5, "validation_accuracy": 0.75, "sparsity": {}})
    assert capsys.readouterr().out == ""
