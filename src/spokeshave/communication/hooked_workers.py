"""Hooked workers: the processes of `torchrun` with TernGrad's hook, as the training loop takes an exchange.

TernGrad, Wen et al., NIPS 2017. The hook's random numbers follow from the step, which the loop hands over, so that a
resumed run goes on as it would have.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.ternary_options import TernaryOptions
from spokeshave.communication.ternary_wire import Wire
from spokeshave.communication.terngrad import exchange_failure, terngrad_hook
from spokeshave.communication.terngrad_state import TernGradState
from spokeshave.errors import InvalidArgument

ZEROS_EVERY = 20
"""Steps between counts of zero codes: to count them, codes have to be unpacked once more."""


class HookedWorkers:
    """One of N processes, as a `GradientExchange` of the training loop.

    Codes are always sent: what is to be the same whenever it is repeated must not depend on what was faster.

    Args:
        options: how gradients become codes.
        wire: how codes travel.
        pack: of the codes.

    Attributes:
        state: of the hook, once a network was attached.
    """

    state: TernGradState | None = None

    def __init__(self, options: TernaryOptions, wire: Wire = Wire.AUTO, pack: Pack = Pack.TWO_BIT) -> None:
        self.options, self.wire, self.pack = options, wire, pack

    def attach(self, network: nn.Module) -> None:
        """Register the hook.

        Raises:
            InvalidArgument: where the process runs alone, or the options do not fit the network.
        """
        if not isinstance(network, DistributedDataParallel):
            raise InvalidArgument("the hook needs DistributedDataParallel: start with torchrun, or use VirtualWorkers")
        options = self.options
        self.state = TernGradState(
            network, clip_factor=options.clip_factor, deviation=options.deviation, granularity=options.granularity,
            share_scaler=options.share_scaler, wire=self.wire, pack=self.pack, min_numel=options.min_numel,
            skip=options.skip, skip_last_layer=options.skip_last_layer, seed=options.seed, trial_steps=0,
            zeros_every=ZEROS_EVERY,
        )  # fmt: skip
        network.register_comm_hook(self.state, terngrad_hook)

    def backward(
        self, step: int, inputs: Tensor, labels: Tensor, one_worker: Callable[[Tensor, Tensor], float]
    ) -> float:
        """Leave the workers' mean ternary gradient in `.grad`; the hook does it while the backward pass runs.

        Args:
            step: part of the random numbers.
            inputs: of this worker.
            labels: of the inputs.
            one_worker: adds the gradient of a batch to `.grad`, and returns its loss.

        Returns:
            This worker's loss.

        Raises:
            ExchangeFailed: another worker ended or hung.
        """
        assert self.state is not None, "attach() comes first"
        self.state.step = step
        try:
            return one_worker(inputs, labels)
        except RuntimeError as error:
            failure = exchange_failure(error)
            if failure is None:
                raise
            raise failure from error

    def report(self) -> dict[str, Any]:
        """Share of zero codes when last counted, by parameter, and bytes sent, both of this process."""
        assert self.state is not None, "attach() comes first"
        stats = self.state.compression_stats()
        return {"zero_codes": stats["zero_codes"], "bytes_sent": stats["bytes_sent"]}

    def settings(self) -> dict[str, Any]:
        """The options, and how many workers send them by which wire."""
        return self.options.to_dict() | {
            "workers": distributed.get_world_size(), "wire": self.wire.value, "pack": self.pack.value,
        }  # fmt: skip
