import numpy as np

from spokeshave.structures.channel_classes import Coupling


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
