"""Choosing between adaptations without a target label, by going back: the target's answers teach a fresh network.

Zhong, Fan, Yang, Verscheure, Ren: Cross Validation Framework to Choose amongst Models and Datasets for Transfer
Learning, ECML 2010; Ganin et al. (Domain-Adversarial Training of Neural Networks, JMLR 2016) chose their weights by it.
Answers that are sure but wrong deceive scores of the answers alone; what was learned from them is wrong on the source,
whose labels are known.
Departs from the paper: the way back is trained without adaptation; batch normalization takes the source's statistics.
"""

from dataclasses import replace

import torch
from torch import nn

from spokeshave.adaptation.adapt import Feeding, adapt
from spokeshave.adaptation.adaptation_objective import SOURCE_ONLY
from spokeshave.data import Normalization, Split
from spokeshave.evaluation import evaluate
from spokeshave.train_settings import TrainSettings


def reverse_accuracy(
    network: nn.Module,
    fresh: nn.Module,
    source: Split,
    target: Split,
    settings: TrainSettings,
    feeding: Feeding,
) -> float:
    """Accuracy on the source, 0..1, of a network that was taught by an adapted one's answers on the target.

    Args:
        network: adapted; put in evaluation mode.
        fresh: is trained in place: not adapted yet, with weights as candidates began with.
        source: labelled images, the fresh network sees none of them before.
        target: images; its labels are never looked at.
        settings: of the fresh network's training.
        feeding: of images.

    Returns:
        0 where all answers are of one class: nothing can be learned from them.
    """
    answers = []
    with torch.no_grad():
        for images, _ in feeding.batches(target, 0, target=True, training=False):
            answers.append(network.eval()(images).argmax(1).cpu())
    taught = type(target)(target.images, torch.cat(answers))
    if len(torch.unique(taught.labels)) < 2:
        return 0.0
    there, here = feeding.target_normalize or feeding.normalize, feeding.normalize
    if here is None and there is not None:
        here = Normalization.scale_only(source.image_shape[0])
    back = replace(feeding, normalize=there, target_normalize=here)
    made = adapt(fresh, taught, source, SOURCE_ONLY, settings, back, refresh=True, label="the way back")
    return evaluate(made.network, back.batches(source, 0, target=True, training=False)).accuracy
