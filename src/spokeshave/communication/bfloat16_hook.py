"""bfloat16 hook: DDP sends gradients in half the bytes, over any backend; what ternary gradients have to beat.

g = sum over N workers of bfloat16(g_i / N): float32's range in 16 bits.
Departs from torch's bf16_compress_hook: that refuses gloo by its name, though gloo adds bfloat16; and it divides after
the conversion, which rounds twice unless N is a power of two. Divided first, each gradient is rounded once before the
sum, and no sum overflows unless the mean does.
"""

import torch
from torch import Tensor, distributed

from spokeshave.errors import InvalidArgument


def bfloat16_hook(
    state: distributed.ProcessGroup | None, bucket: distributed.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients over the workers in bfloat16: `ddp.register_comm_hook(None, ss.bfloat16_hook)`.

    One all-reduce a bucket, on its way while the backward pass goes on. The result replaces the gradients in the
    bucket's own memory, the same bits on every worker. Types of 16 bits travel as they are. NaN and infinity stay.

    Args:
        state: the process group; None for the default one.
        bucket: what DDP hands over, of real floating-point gradients.

    Returns:
        A future of the averaged gradients.

    Raises:
        InvalidArgument: for complex gradients, and where `torch.compile` with `optimize_ddp="python_reducer"` calls it.

    Example:
        Two workers have 1.0 and 1.0078125, neighbours in bfloat16. Their halves are exact, the sum 1.00390625 lies
        between two numbers of bfloat16, and becomes the even one.

        >>> (torch.tensor(0.5).bfloat16() + torch.tensor(0.50390625).bfloat16()).item()
        1.0
    """
    if isinstance(bucket, tuple):
        raise InvalidArgument(
            "bfloat16_hook: expected a bucket of DDP, got a tuple: torch.compile with "
            'optimize_ddp="python_reducer" calls hooks without buckets and drops what they return; set '
            'torch._dynamo.config.optimize_ddp to "ddp_optimizer", the default'
        )
    gradients = bucket.buffer()
    if not gradients.is_floating_point():
        raise InvalidArgument(
            f"bfloat16_hook: expected real floating-point gradients, got {gradients.dtype}; "
            "leave the hook out for this model"
        )
    group = distributed.group.WORLD if state is None else state
    assert group is not None
    gradients.div_(group.size())
    sent = gradients if gradients.element_size() <= 2 else gradients.bfloat16()

    def write_back(future: torch.futures.Future[list[Tensor]]) -> Tensor:
        return gradients.copy_(future.value()[0])

    # The only round: another one from inside `then` would start in an order of its own on each worker.
    work = distributed.all_reduce(sent, group=group, async_op=True)
    assert work is not None
    return work.get_future().then(write_back)
