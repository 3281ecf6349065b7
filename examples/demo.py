"""The main job from end to end, as `make demo` runs it; every step is a command that you can run yourself.

Samples the embedded bundles of images; then trains a DDPM on digits for about a minute, exports it in FP32 and
FP16 with an ahead-of-time engine, verifies it, samples 64 images in 20 DDIM steps, and measures its latency.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

EMBEDDED = ("digits-ddpm", "digits-dcgan", "digits-vae", "digits-pixelcnn")


def gensdk(title: str, command: str) -> None:
    """Shows and runs one gensdk command; a failure ends the demo with its exit code."""
    print(f"\n== {title}\n$ gensdk {command}", flush=True)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-P", "-m", "gensdk", *shlex.split(command)], check=False)
    if done.returncode:
        print(f"the command failed with exit code {done.returncode}")
        sys.exit(done.returncode)
    print(f"({time.monotonic() - start:.0f} s)", flush=True)


def main() -> None:
    """Runs the demo into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for what the demo makes")
    parser.add_argument("--seconds", type=int, default=60, help="training time")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    for name in EMBEDDED:
        gensdk(f"64 samples of the embedded {name}", f"sample {name} -n 64 --seed 0 -o {out}/{name}.png")
    run, bundle = out / "run", out / "my-ddpm.gsdk"
    resume = "--resume" if (run / "run.json").exists() else ""
    gensdk(
        f"train a DDPM on digits for {given.seconds} s",
        f"train ddpm --data digits --out {run} --set conditional=true --max-seconds {given.seconds} "
        f"--preview-every 0 --log-every 200 {resume}",
    )
    gensdk(
        "export it: ONNX in FP32 and FP16, an ahead-of-time TensorRT-RTX engine, and the proof",
        f"export {run} -o {bundle} --fp16 --format engine",
    )
    gensdk("verify the bundle against PyTorch's golden trajectories", f"verify {bundle}")
    gensdk(
        "64 samples in 20 DDIM steps",
        f"sample {bundle} -n 64 --seed 0 --solver ddim --num-inference-steps 20 -o {out}/my-ddpm.png",
    )
    gensdk("measure latency", f"bench {bundle} --batch 1,16 --precision fp32 --plot {out}/latency.png")
    print("\n== pictures to open")
    for path in (*(f"{name}.png" for name in EMBEDDED), "my-ddpm.png", "latency.png"):
        print(f"  {out / path}")


if __name__ == "__main__":
    main()
