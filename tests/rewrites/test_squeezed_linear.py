import numpy as np
import torch
from torch import nn

from spokeshave.rewrites import SqueezedLinear


def test_only_used_features_are_read():
    layer = nn.Linear(10, 4)
    used = np.arange(10) % 3 == 0
    with torch.no_grad():
        layer.weight[:, torch.from_numpy(~used)] = 0
    squeezed = SqueezedLinear(layer, used)
    x = torch.randn(3, 5, 10)
    torch.testing.assert_close(squeezed(x), layer(x))
    x[..., 1] = float("nan")
    assert torch.isfinite(squeezed(x)).all()
    assert squeezed.in_features == 4 and set(squeezed.state_dict()) == {"weight", "bias", "features"}
