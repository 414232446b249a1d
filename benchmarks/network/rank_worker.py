"""One rank: builds a DDP network for every contestant, all alike, and trains the one that it is told to.

Started by rank_crew.py, which writes a request a line to standard input and reads an answer a line from standard
output. Requests come over pipes and byte counters are read from outside, so nothing but training crosses the network.
The process ends when its input does, even in the middle of an exchange: whoever started it is done, or dead.

Traps:
- gloo takes the address of the host's name unless GLOO_SOCKET_IFNAME names an interface; that would be loopback here.
- DDP orders its buckets anew after a first step, and tells the other ranks: the first turn is not counted.
"""

import hashlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from datetime import timedelta
from typing import Any

import torch
from exchange_contestants import CONTESTANTS
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from trained_networks import network_and_images


class Rank:
    """What a rank keeps between requests.

    Args:
        start: the first request: rank, ranks, interface, address, port, timeout_s, network, batch, seed, contestants,
            core (None: any).
    """

    def __init__(self, start: dict[str, Any]) -> None:
        if start["core"] is not None:
            os.sched_setaffinity(0, {start["core"]})
        os.environ["GLOO_SOCKET_IFNAME"] = start["interface"]
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{start['address']}:{start['port']}",
            rank=start["rank"],
            world_size=start["ranks"],
            timeout=timedelta(seconds=start["timeout_s"]),
        )
        self._states: dict[str, Any] = {}
        self._networks: dict[str, DistributedDataParallel] = {}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self.sizes: list[int] = []
        for name in start["contestants"]:
            network, self._images, self._labels = network_and_images(
                start["network"], start["batch"], start["seed"], start["rank"]
            )
            self.sizes = [weight.numel() for weight in network.parameters()]
            self._networks[name] = DistributedDataParallel(network)
            self._states[name] = CONTESTANTS[name].register(self._networks[name])
            self._optimizers[name] = torch.optim.SGD(network.parameters(), lr=0.01)

    def steps(self, contestant: str, count: int) -> dict[str, Any]:
        """Train for some steps: seconds of each, what the hook counted (None: no hook that counts), what it says."""
        network, optimizer = self._networks[contestant], self._optimizers[contestant]
        state, seconds = self._states[contestant], []
        before = None if state is None else state.bytes_sent
        for _ in range(count):
            began = time.perf_counter()
            optimizer.zero_grad()
            error = nn.functional.cross_entropy(network(self._images), self._labels)
            error.backward()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
        if state is None:
            return {"seconds": seconds, "counted_bytes": None, "said": None}
        return {"seconds": seconds, "counted_bytes": state.bytes_sent - before, "said": state.verdict}

    def digest(self, contestant: str) -> dict[str, str]:
        """Of the weights: the same on every rank, or the gradients were not."""
        digest = hashlib.sha256()
        for weight in self._networks[contestant].parameters():
            digest.update(weight.detach().numpy().tobytes())
        return {"digest": digest.hexdigest()}


def _read_requests(requests: "queue.Queue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints must not come between the answers
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    rank: Rank | None = None
    while True:
        request = requests.get()
        try:
            if rank is None:
                rank = Rank(request)
                answer: dict[str, Any] = {"sizes": rank.sizes}
            else:
                answer = getattr(rank, request.pop("do"))(**request)
        except Exception:  # noqa: BLE001 - whatever it is, the parent tells
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
