"""The other side of `lapidary bench --against onnxruntime`: runs what it is told, one line a command.

    argv: MODEL THREADS INPUTS.npz
    out:  ready COLD_MS VERSION
    in:   run N        out: N times in ns
    in:   save FILE    out: saved        (outputs by name, .npz)
    in:   memory       out: peak resident set in kB
"""

import os
import sys
import time

# Fail before the long import if numpy is missing, with a text that the user can act on.
try:
    import numpy
    import onnxruntime
except ImportError as error:
    print(f"failed {error}", flush=True)
    sys.exit(1)


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

    model, threads, inputs = sys.argv[1:4]
    feed = dict(numpy.load(inputs))
    begin = time.perf_counter_ns()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, feed)
    except Exception as error:
        say("failed " + " ".join(str(error).split()))
        return 1
    say(f"ready {(time.perf_counter_ns() - begin) / 1e6} onnxruntime {onnxruntime.__version__}")
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "run":
            times = []
            for _ in range(int(rest)):
                begin = time.perf_counter_ns()
                outputs = session.run(None, feed)
                times.append(time.perf_counter_ns() - begin)
            say(" ".join(map(str, times)))
        elif verb == "save":
            names = [value.name for value in session.get_outputs()]
            numpy.savez(rest, **dict(zip(names, outputs)))
            say("saved")
        elif verb == "memory":
            say(str(peak_kb()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
