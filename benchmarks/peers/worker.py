"""One contestant of a benchmark, in a process and an environment of its own; imports nothing but that contestant.

    python worker.py CONTESTANT THREADS

Requests come as JSON lines on stdin, answers go out likewise. Inputs are prepared before the clock starts, and outputs
are compared once, when a network is loaded. Every time is taken twice: by the wall, and as CPU time of the process.

    {"do": "load", "model": "a.onnx", "example": "a.npz"}   example: arrays `input` and `expected`
    {"do": "run", "calls": 5}                              after one call that is not timed
    {"do": "peak", "calls": 5}                             GFLOP/s of multiply-adds alone (spokeshave only)
"""

import json
import os
import sys
import time
from pathlib import Path


class Spokeshave:
    """Ours, by what a user calls: an engine read from a file, on a tensor of images."""

    def __init__(self, threads):
        from importlib.metadata import version

        import torch

        import spokeshave

        torch.set_num_threads(threads)
        self.torch, self.package = torch, spokeshave
        self.version = version("spokeshave")

    def load(self, model, images):
        """The call to time, and how to read its result."""
        network, images = self.package.load_sparse(model), self.torch.from_numpy(images)
        return lambda: network(images), lambda result: result.numpy()

    def peak(self, calls):
        """GFLOP/s of multiply-adds alone."""
        from fma_peak import fma_peak_gflops

        return fma_peak_gflops(calls)


class SpokeshaveSegment(Spokeshave):
    """The same engine called on arrays, without the module around it that checks inputs and names results."""

    def load(self, model, images):
        """The call to time, and how to read its result."""
        network = self.package.load_sparse(model)
        (segment,) = network._segments
        return lambda: segment([images]), lambda result: result[0]


class Torch:
    """Torch's own operations, as a TorchScript program: eager kernels without the time that Python takes."""

    channels_last = False
    frozen = False

    def __init__(self, threads):
        import warnings

        import torch

        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.set_num_threads(threads)
        self.torch, self.version = torch, torch.__version__

    def load(self, model, images):
        """The call to time, and how to read its result."""
        torch, images = self.torch, self.torch.from_numpy(images)
        network = torch.jit.load(model).eval()
        if self.channels_last and images.ndim == 4:
            network, images = (one.to(memory_format=torch.channels_last) for one in (network, images))
        if self.frozen:
            network = torch.jit.optimize_for_inference(torch.jit.freeze(network))
        mode = torch.inference_mode()
        mode.__enter__()
        return lambda: network(images), lambda result: result.detach().contiguous().numpy()


class TorchChannelsLast(Torch):
    """The same with weights and activations in channels_last."""

    channels_last = True


class TorchFrozen(Torch):
    """The same, frozen and optimized for inference: oneDNN's fused operations on packed weights."""

    frozen = True


class DeepSparse:
    """DeepSparse, the sparse engine of Neural Magic; one stream, as many cores as threads."""

    def __init__(self, threads):
        os.environ["NM_DISABLE_ANALYTICS"] = "1"
        import deepsparse

        self.package, self.threads, self.version = deepsparse, threads, deepsparse.__version__

    def load(self, model, images):
        """The call to time, and how to read its result."""
        engine = self.package.Engine(
            model, batch_size=len(images), num_cores=self.threads, scheduler=self.package.Scheduler.single_stream
        )
        return lambda: engine.run([images], val_inp=False), lambda result: result[0]


class OpenVino:
    """OpenVINO: one stream for latency, float32 (it would take bfloat16 where the CPU has it)."""

    def __init__(self, threads):
        import openvino

        self.package, self.threads, self.version = openvino, threads, openvino.__version__
        self.core = openvino.Core()

    def load(self, model, images):
        """The call to time, and how to read its result."""
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        network = self.core.read_model(model)
        network.reshape(list(images.shape))
        request = self.core.compile_model(network, "CPU", settings).create_infer_request()
        request.set_input_tensor(self.package.Tensor(images, shared_memory=True))
        return request.infer, lambda _: request.get_output_tensor().data.copy()


class OnnxRuntime:
    """ONNX Runtime's CPU provider with every graph optimization, inputs and outputs bound beforehand."""

    def __init__(self, threads):
        import onnxruntime

        self.package, self.threads, self.version = onnxruntime, threads, onnxruntime.__version__

    def load(self, model, images):
        """The call to time, and how to read its result."""
        options = self.package.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = self.package.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        session = self.package.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        binding.bind_ortvalue_input(
            session.get_inputs()[0].name, self.package.OrtValue.ortvalue_from_numpy(images, "cpu", 0)
        )
        binding.bind_output(session.get_outputs()[0].name, "cpu")
        return lambda: session.run_with_iobinding(binding), lambda _: binding.copy_outputs_to_cpu()[0]


CONTESTANTS = {
    "spokeshave": Spokeshave,
    "spokeshave-segment": SpokeshaveSegment,
    "torch": Torch,
    "torch-channels-last": TorchChannelsLast,
    "torch-frozen": TorchFrozen,
    "deepsparse": DeepSparse,
    "openvino": OpenVino,
    "onnxruntime": OnnxRuntime,
}


def relative_error(result, expected):
    """Largest difference, relative to the largest expected value."""
    import numpy

    return float(numpy.abs(result - expected).max() / numpy.abs(expected).max())


def timed(call, calls):
    """Seconds of each call, by the wall and of the process's CPUs."""
    call()
    wall, cpu = [], []
    for _ in range(calls):
        first, begin = time.process_time(), time.perf_counter()
        call()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - first)
    return {"wall_s": wall, "cpu_s": cpu}


def main():
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a runtime prints must not stand between the answers
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    contestant, call = CONTESTANTS[sys.argv[1]](int(sys.argv[2])), None
    answers.write(json.dumps({"version": contestant.version}) + "\n")
    import numpy

    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                call = None  # frees the earlier network first
                with numpy.load(request["example"]) as arrays:
                    images, expected = arrays["input"], arrays["expected"]
                call, read = contestant.load(request["model"], images)
                answer = {"relative_error": relative_error(read(call()), expected)}
            elif request["do"] == "peak":
                answer = {"gflops": contestant.peak(request["calls"])}
            else:
                answer = timed(call, request["calls"])
        except Exception as error:  # noqa: BLE001 - whatever a runtime fails with is that contestant's answer
            answer = {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
