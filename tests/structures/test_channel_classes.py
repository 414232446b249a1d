import numpy as np
import torch

from spokeshave.structures.channel_classes import Channels, Coupling, follow_index, pads_of_axis


def test_joining_is_transitive_and_pins_reach_the_whole_class():
    coupling = Coupling()
    a, b, c = coupling.fresh(3), coupling.fresh(3), coupling.fresh(3)
    coupling.join(a, b)
    coupling.join(b[1:], c[:2])
    classes = coupling.classes()
    assert classes[a[1]] == classes[b[1]] == classes[c[0]] and classes[a[2]] == classes[c[1]]
    assert len(np.unique(classes)) == 4
    coupling.pin_ids(c[:1], "because")
    pinned = coupling.pinned(classes)
    assert pinned[classes].tolist() == [False, True, False] * 2 + [True, False, False]
    assert coupling.pin_reasons(classes) == {int(classes[a[1]]): "because"}


def test_follow_index_counts_axes_as_torch_does():
    x = torch.zeros(2, 6, 4, 5)
    channels = Channels(1, torch.arange(6).numpy())
    for index in [
        (slice(None), slice(1, 3)),
        (0,),
        (slice(None), slice(2, None), 0),
        (None, slice(None), slice(-2, None)),
        (Ellipsis, 0),
        (0, slice(0, 2), None),
    ]:
        found = follow_index(channels, index, 4)
        assert found is not None and x[index].shape[found.axis] == len(found.ids)
    assert follow_index(channels, (slice(None), 1), 4) is None
    assert follow_index(channels, (slice(None), slice(0, 6, 2)), 4) is None


def test_pads_are_counted_from_the_last_axis():
    assert pads_of_axis((1, 2, 3, 4), 1) == (3, 4)
    assert pads_of_axis((1, 2), 1) == (0, 0)
