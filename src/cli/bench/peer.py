"""The other side of `lapidary bench --against PEER`: runs what it is told, one line a command.

    argv: PEER MODEL THREADS INPUTS.npz
    out:  ready COLD_MS VERSION
    in:   run N        out: N times in ns
    in:   save FILE    out: saved        (outputs by name, .npz)
    in:   memory       out: peak resident set in kB
"""

import os
import sys
import time

# Fail before the model is read if a package is missing, with a text that the user can act on.
try:
    import numpy

    if sys.argv[1] == "openvino":
        import openvino
    else:
        import onnxruntime
except ImportError as error:
    print(f"failed {error}", flush=True)
    sys.exit(1)


class OnnxRuntime:
    """At its defaults on the CPU."""

    name = "onnxruntime"

    def __init__(self, model, threads, feed):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.feed = feed
        self.version = onnxruntime.__version__

    def run(self):
        self.results = self.session.run(None, self.feed)

    def outputs(self):
        return dict(zip((value.name for value in self.session.get_outputs()), self.results))


class OpenVino:
    """For latency, in f32 where the model is: by default it may compute in bf16 where the processor can."""

    name = "openvino"

    def __init__(self, model, threads, feed):
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        self.compiled = core.compile_model(core.read_model(model), "CPU", options)
        self.request = self.compiled.create_infer_request()
        self.feed = feed
        self.version = openvino.__version__.split("-")[0]

    def run(self):
        # Neither inputs nor outputs are copied, as ours are not.
        self.results = self.request.infer(self.feed, share_inputs=True, share_outputs=True)

    def outputs(self):
        return {name: self.results[port] for port in self.compiled.outputs for name in port.get_names()}


def peak_kb():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def main():
    # Answers go to a copy of stdout; what libraries print must not get between them.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(text):
        print(text, file=answers, flush=True)

    package, model, threads, inputs = sys.argv[1:5]
    feed = dict(numpy.load(inputs))
    begin = time.perf_counter_ns()
    try:
        peer = (OpenVino if package == "openvino" else OnnxRuntime)(model, int(threads), feed)
        peer.run()
    except Exception as error:
        say("failed " + " ".join(str(error).split()))
        return 1
    say(f"ready {(time.perf_counter_ns() - begin) / 1e6} {peer.name} {peer.version}")
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "run":
            times = []
            for _ in range(int(rest)):
                begin = time.perf_counter_ns()
                peer.run()
                times.append(time.perf_counter_ns() - begin)
            say(" ".join(map(str, times)))
        elif verb == "save":
            numpy.savez(rest, **peer.outputs())
            say("saved")
        elif verb == "memory":
            say(str(peak_kb()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
