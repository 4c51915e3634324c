"""What only a GPU can tell: correctness against the CPU, speed, memory, waits, determinism, whole runs.

    python tests/gpu/check.py [--seconds 540] [--parts a,b] [--device cpu --tiny] [--json FILE]

Each part is a process of its own, so that a crash, or a compiler that hangs, ends that part only. What a part knows is
written at once: FILE (else gpu_check.json) holds, by part, what was found, the `faults` among it, and how long it took.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attack import attacks
from lightning_attack.attacks.random import Draws
from lightning_attack.common.windows import Windows
from lightning_attack.data import SyntheticScenes
from lightning_attack.engine import Kind, Precision, exact_on, float32_precision, full_float32
from lightning_attack.metrics import SegmentationScores
from lightning_attack.models import (
    Defended,
    Ensemble,
    ExportedModel,
    SegmentationModel,
    Smoothed,
    TrainedModel,
    export_model,
    freeze,
)
from lightning_attack.models.acceleration import FastNetworks
from lightning_attack.models.defences import (
    JPEG,
    BitDepth,
    CropAndScale,
    FlipAndScales,
    GaussianFilter,
    MedianFilter,
    ResizeAndPad,
)
from lightning_attack.models.denoising import TotalVariation
from lightning_attack.models.wrapper import decide, with_windows
from lightning_attack.predict.cost import clock
from lightning_attack.predict.module import AttackModule
from tests.attacks.toys import FEW
from tests.benchmarks.networks import NETWORKS, _calibrated

ROOT = Path(__file__).parents[2]
PARTS = {
    "info": 40, "hazards:ensemble": 60, "hazards:windows": 60, "hazards:attention": 60, "pt2": 60,
    "engine:unet-resnet18": 80, "engine:fpn-mobilenet_v2": 60, "engine:deeplabv3plus-resnet50": 80,
    "engine:segformer-b0": 60, "whole:default": 50, "whole:large": 70, "presets": 120, "determinism": 90,
    "presets:exact": 90, "targets": 40, "hours": 90, "whole:ddp": 60, "whole:fit": 60, "whole:universal": 60,
    "whole:bf16": 40, "whole:compiled": 110, "compiled:unet-resnet18": 150,
}  # fmt: skip
"""Parts in the order in which they are run, and the most seconds that each may take; on a CPU ten times as many."""
RUNS = {
    "default": ["predict"],
    "large": ["predict", "--data.dataset.size=512", "--data.dataset.count=64"],
    "compiled": ["predict", "--model.engine=compiled"],
    "bf16": ["predict", "--model.engine=fused", "--model.precision=bf16"],
    "ddp": ["predict", "--trainer.strategy=ddp", "--data.limit=4", "--model.attack.steps=2"],
    "fit": ["fit", "-c", "configs/fit/scenes_fpn.yaml", "--trainer.strategy=ddp", "--trainer.max_epochs=1",
            "--data.train.init_args.count=32", "--data.val.init_args.count=8", "--trainer.logger=false",
            "--trainer.callbacks=null"],
    "universal": ["universal", "--trainer.strategy=ddp", "--trainer.max_epochs=1", "--data.train.init_args.count=32"],
}  # fmt: skip
ENGINES: list[tuple[Kind, Precision]] = [("eager", "float32"), ("fused", "float32"), ("fused", "bf16")]
BUSY = 85
"""Percent of the time that a GPU is to compute while large photos are attacked."""
OF_ATTENTION = attacks.FixedAttention, attacks.TokenGradients
EPS, STEP = 8 / 255, 0.01


def main() -> None:
    """Run the parts one after the other, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540, help="for all parts together")
    parser.add_argument("--parts", default="", help=f"names, or what stands before the colon, of {', '.join(PARTS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small images and few steps: tries the script itself")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        Part(options).start()
        return
    end, found = time.monotonic() + options.seconds, {}
    wanted = {*filter(None, options.parts.split(","))}
    for name, most in PARTS.items():
        if wanted and not wanted & {name, name.partition(":")[0]}:
            continue
        left, most = end - time.monotonic() - 4, most * (1 if options.device == "cuda" else 10)
        found[name] = run_part(name, min(most, left), options) if left > 15 else {"faults": ["no time was left"]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(found[name])[:1000], flush=True)


def run_part(name: str, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """What a part found, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file, begin = Path(folder) / "part.json", time.monotonic()
        words = [sys.executable, __file__, "--part", name, "--json", str(file), "--device", options.device]
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(
                [*words, *["--tiny"] * options.tiny], stdout=log, stderr=log, cwd=ROOT, start_new_session=True,
                env=os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
            )  # fmt: skip
            code: int | None = None
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(seconds)
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # the part's own processes
            process.wait()
            log.seek(0)
            said = log.read()[-800:]
        found = json.loads(file.read_text()) if file.exists() else {"faults": []}
    if code != 0:
        found["faults"].append("out of time" if code is None else f"exit code {code}: {said}")
    return found | {"seconds": round(time.monotonic() - begin, 1)}


class Part:
    """One part; its methods are named as in `PARTS`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device, self.cuda = options, torch.device(options.device), options.device == "cuda"
        self.known: dict[str, Any] = {"faults": []}
        handler = logging.Handler()
        handler.emit = lambda record: self.fault(record.getMessage())  # an engine that gives up says so
        logging.getLogger("lightning_attack.engine").addHandler(handler)

    def start(self) -> None:
        name, _, what = self.options.part.partition(":")
        with self.trying(self.options.part):
            getattr(self, name)(*[what] * bool(what))
        self.save()

    def save(self, **values: Any) -> None:
        """Keep what is known by now."""
        self.known |= values
        self.options.json.write_text(json.dumps(self.known, default=str))

    def fault(self, text: str) -> None:
        """Keep what should not be."""
        self.known["faults"].append(text[:400])
        self.save()

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """What fails inside is a fault, and the part goes on."""
        try:
            yield
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error).strip()} ({Path(at.filename).name}:{at.lineno})"
            self.fault(f"{name}: {text}")

    def milliseconds(self, work: Callable[[], object], seconds: float = 0.8) -> tuple[float, float]:
        """The first call, and the median of the later ones."""
        took: list[float] = []
        while len(took) < 4 or (sum(took[1:]) < 1e3 * seconds and len(took) < 200):
            begin = time.perf_counter()
            work()
            if self.cuda:
                torch.cuda.synchronize()
            took.append(1e3 * (time.perf_counter() - begin))
        return round(took[0]), round(sorted(took[2:])[len(took[2:]) // 2], 3)

    def info(self) -> None:
        """The machine; whether 8-bit levels stay what they are; how long copies and random numbers take."""
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        self.save(python=platform.python_version(), torch=torch.__version__, gpus=names, cpus=os.cpu_count(),
                  cudnn=torch.backends.cudnn.version(), float32=float32_precision())  # fmt: skip
        levels = (torch.arange(256) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16).to(self.device)
        if moved := int((attacks.Linf().quantize(levels, levels) != levels).sum()) // 3:
            self.fault(f"{moved} of 256 levels are changed by quantising")
        size = (3, 64, 64) if self.options.tiny else (3, 512, 1024)
        host = torch.rand(8, *size)
        rates = {"8 images from pageable memory": lambda: host.to(self.device),
                 "random numbers of 8 images": lambda: Draws(range(8), self.device).uniform("a", size)}  # fmt: skip
        if self.cuda:
            pinned = host.pin_memory()
            rates["8 images from pinned memory"] = lambda: pinned.to(self.device, non_blocking=True)
        self.save(milliseconds={name: self.milliseconds(work, 0.3)[1] for name, work in rates.items()})

    def hazards(self, kind: str) -> None:
        """Gradients of recorded passes where forward is called more than once before a backward pass."""
        make = {
            "ensemble": lambda: Ensemble([small(1), small(2)]),
            "windows": lambda: with_windows(small(1), Windows(48)),
            "attention": lambda: small(1, attention=True),
        }[kind]
        draws, gradients = torch.Generator().manual_seed(1), {}
        batches = [torch.rand(2, 3, 64, 64, generator=draws).to(self.device) for _ in range(4)]
        for engine in ("eager", "fused", *["compiled"] * self.cuda):
            model = freeze(make()).to(self.device)
            fast, gradients[engine] = FastNetworks([model], engine, "float32"), []
            for images in batches:
                with fast.attacking(), full_float32():
                    for turn in range(3):
                        at = images.roll(turn, -1).requires_grad_()
                        gradient = torch.autograd.grad(model(at).square().sum(), at)[0]
                        gradients[engine].append(gradient.cpu().clone())
        for engine, found in gradients.items():
            off = max(float((a - b).norm() / b.norm()) for a, b in zip(found, gradients["eager"], strict=True))
            self.save(**{f"{engine} off by": off})
            if not off < 1e-3:
                self.fault(f"gradients of {engine} are off by {off}")

    def pt2(self) -> None:
        """Exported programs, ours and those of others, against the CPU."""
        zoo = ROOT.parent / "shared" / "zoo"
        with tempfile.TemporaryDirectory() as folder:
            for name in ("scenes_fpn",) if self.options.tiny else ("scenes_fpn", "scenes_segformer"):
                export_model(TrainedModel(f"embedded:{name}"), f"{folder}/{name}.pt2")
            for path in [*Path(folder).glob("*.pt2"), *zoo.glob("*.pt2")]:
                with self.trying(path.stem), full_float32():
                    model, images = freeze(ExportedModel(str(path))), torch.rand(1, 3, 96, 96)
                    expected = model(images)
                    off = float((model.to(self.device)(images.to(self.device)).cpu() - expected).abs().max())
                    self.save(**{path.stem: off})
                    if not off < 1e-2:
                        self.fault(f"{path.stem} is off by {off}")

    def compiled(self, name: str) -> None:
        """As `engine`, for the engine that takes minutes to prepare."""
        self.engine(name, [("compiled", "float32"), ("compiled", "bf16")])

    def engine(self, name: str, kinds: Sequence[tuple[Kind, Precision]] = ENGINES) -> None:
        """A step of an attack in plain loops, by each engine, and by torchattacks: time, memory, agreement of signs."""
        make, classes, (batch, height, width) = (NETWORKS | SEGFORMER)[name]
        height, width = (64, 64) if self.options.tiny else (height, width)
        draws, rows, steps = torch.Generator().manual_seed(1), {}, 3 if self.options.tiny else 10
        network = freeze(make()).to(self.device)
        images = torch.rand(batch, 3, height, width, generator=draws).to(self.device)
        labels = torch.randint(classes, (batch, height, width), generator=draws).to(self.device)

        def gradient(model: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
            at = at.detach().requires_grad_()
            return torch.autograd.grad(F.cross_entropy(model(at).float(), labels, reduction="sum"), at)[0]

        with full_float32():
            reference = gradient(network, images).sign()

        def row(title: str, step: Callable[[], object], each: int = 1, **more: Any) -> None:
            if self.cuda:
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if self.cuda else 0
            _, median = self.milliseconds(step)
            per_second = round(1e3 * each * batch / median, 1)
            rows[title] = {"ms": round(median / each, 3), "images per s": per_second, **more}
            rows[title]["times plain"] = round(rows["plain"]["ms"] / rows[title]["ms"], 2)
            if self.cuda:
                rows[title]["MB"] = (torch.cuda.max_memory_allocated() - before) >> 20
            self.save(rows=rows)

        def loop(title: str, model: Callable[[Tensor], Tensor], start: Tensor = images) -> None:
            state = [start]

            def step() -> None:
                moved = state[0] + STEP * gradient(model, state[0]).sign()
                state[0] = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)

            with self.trying(title):
                begin = clock(images)
                found = gradient(model, start).sign()
                first = round(1e3 * (clock(images) - begin))
                row(title, step, signs=round(float((found == reference).float().mean()), 4), **{"first call ms": first})

        loop("plain", network)
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        loop("channels_last", last, images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(self.device.type, torch.bfloat16):
            loop("channels_last, autocast bf16", last, images.contiguous(memory_format=torch.channels_last))
        if find_spec("torchattacks"):
            with self.trying("torchattacks"):
                import torchattacks

                attack = torchattacks.PGD(network, EPS, STEP, steps=steps, random_start=False)
                row("torchattacks.PGD", partial(attack, images, labels), steps)
        for kind, precision in kinds:
            with self.trying(f"{kind} {precision}"):
                fast = FastNetworks([network], kind, precision)
                with fast.attacking(images):  # a shape is rewritten when it comes again
                    gradient(network, images)
                with fast.attacking(images):
                    loop(f"{kind} {precision}", network)
                    attack = attacks.pgd(steps=steps)
                    row(f"pgd, {kind} {precision}", partial(attack, network, images, labels, range(batch)), steps)
        for precision, least in (("float32", 1.5), ("bf16", 3)):
            times = rows.get(f"fused {precision}", {}).get("times plain", 0)
            if self.cuda and ("fused", precision) in kinds and times < least:
                self.fault(f"fused {precision} is {times} times as fast as the plain loop, not {least}")

    def presets(self, what: str = "") -> None:
        """Every preset against the CPU, with the times that the host waits for the device; or (`exact`) against itself.

        After the first step and before the last there may be fewer waits than steps: some attacks are several runs.
        """
        rows, (images, labels) = {}, scenes(2, 32 if self.options.tiny else 64)
        networks = [freeze(TrainedModel(f"embedded:scenes_{kind}")) for kind in ("deeplabv3plus", "fpn")]
        attending = freeze(small(1, attention=True, classes=8))
        partners = torch.rand(2, 3, *images.shape[1:], generator=torch.Generator().manual_seed(0))
        devices = [self.device] * 2 if what else [torch.device("cpu"), self.device]
        for preset in attacks.PRESETS:
            name, took = preset.__name__, []
            with self.trying(name), full_float32():
                attack = preset(**settings_of(preset))
                attends = any(isinstance(one, OF_ATTENTION) for one in source_transforms(attack))
                source = attending if attends else Ensemble(networks) if attack.needs_members else networks[0]
                found, waits = [], [0]
                for device in devices:
                    more = {"partners": partners.to(device)} if attack.mixes else {}
                    given = source.to(device), images.to(device), labels.to(device), [1, 2]
                    begin = time.perf_counter()
                    with exact_on(device) if what else nullcontext(), self.counting(attack, waits) as log:
                        found.append(attack(*given, log=log, **more).cpu())
                    took.append(round(time.perf_counter() - begin, 2))
                if what:
                    rows[name] = {"seconds": took}
                    if not torch.equal(*found):
                        self.fault(f"{name}: two exact runs differ")
                else:
                    equal = round(float(((found[0] - found[1]).abs() < 1e-4).float().mean()), 3)
                    miou = [self.miou(source.cpu(), one, labels) for one in found]
                    rows[name] = {"equal values": equal, "miou": miou, "seconds": took, "waits": waits[0]}
                    if abs(miou[0] - miou[1]) > 5:
                        self.fault(f"{name}: mIoU {miou[0]} on the CPU, {miou[1]} here")
                    if waits[0] >= max(getattr(attack, "steps", 1) - 1, 1):
                        self.fault(f"{name}: {waits[0]} waits between the first and the last step")
                self.save(rows=rows)

    @contextmanager
    def counting(self, attack: attacks.Attack, waits: list[int]) -> Iterator[Callable[[int, object], None]]:
        """Gives what an attack calls after each step, so that what it waits for in between is counted."""
        last = getattr(attack, "steps", 1) - 1

        def log(step: int, figures: object) -> None:
            if self.cuda:
                torch.cuda.set_sync_debug_mode("warn" if step < last else "default")

        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield log
        finally:
            log(last, {})
            waits[0] += sum("synchroniz" in str(one.message) for one in caught)

    @staticmethod
    def miou(model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """In percent."""
        scores = SegmentationScores(8)
        scores.update(model(images).argmax(1), labels)
        return round(100 * float(scores.compute()["miou"]), 2)

    def targets(self) -> None:
        """Defended and smoothed targets against the CPU."""
        images, _ = scenes(2, 64)
        defences = {
            "jpeg": [JPEG(75)], "bits": [BitDepth(4)], "median": [MedianFilter(3)], "blur": [GaussianFilter(1.0)],
            "pad": [ResizeAndPad(0.9)], "crops": [CropAndScale(0.8)], "scales": [FlipAndScales()],
            "variation": [TotalVariation(0.1)],
        }  # fmt: skip
        inner = TrainedModel("embedded:scenes_fpn")
        makes = {name: partial(Defended, inner, parts) for name, parts in defences.items()}
        makes["smoothed"] = partial(Smoothed, TrainedModel("embedded:scenes_fpn_robust"), 0.05, n0=4, n=60)
        for name, make in makes.items():
            with self.trying(name), full_float32(), torch.no_grad():
                model = freeze(make())
                expected = decide(model.cpu(), model(images))
                with exact_on(self.device):
                    found = decide(model.to(self.device), model(images.to(self.device))).cpu()
                equal = round(float((found == expected).float().mean()), 4)
                self.save(**{name: equal})
                if equal < 0.98:
                    self.fault(f"{name}: {equal:.1%} of the classes are those of the CPU")

    def hours(self) -> None:
        """Images that are attacked in an hour of this device, by attack, size and precision."""
        make, classes, _ = NETWORKS["deeplabv3plus-resnet50"]
        network, rows = freeze(make()).to(self.device), {}
        sizes = [(1, 64, 64)] if self.options.tiny else [(8, 256, 256), (4, 512, 512), (2, 512, 1024)]
        makes = {"pgd": attacks.pgd, "transegpgd_mi_di_ti": attacks.transegpgd_mi_di_ti,
                 "vmi_fgsm": attacks.vmi_fgsm, "transfer_best": attacks.transfer_best}  # fmt: skip
        for (name, preset), (batch, *size) in product(makes.items(), sizes):
            attack = preset(steps=2)  # of 20
            # Source transforms run in float32, whatever is asked for.
            for precision in ("float32",) if attack.source_transforms else ("float32", "bf16"):
                with self.trying(f"{name}, {size}, {precision}"):
                    images = torch.rand(batch, 3, *size, device=self.device)
                    labels = torch.randint(classes, (batch, *size), device=self.device)
                    fast, took = FastNetworks([network], "fused", precision), []
                    for _ in range(3):  # a shape is rewritten when it comes again
                        begin = clock(images)
                        with fast.attacking(images):
                            attack(network, images, labels, range(batch))
                        took.append(clock(images) - begin)
                    each = took[-1] * 20 / attack.steps / batch
                    rows[f"{name}, 20 steps, {size[0]} x {size[1]}, {precision}"] = round(3600 / each)
                    self.save(images_per_hour=rows)

    def determinism(self) -> None:
        """How many values differ between two runs, and between batches of 4 and of 1."""
        rows, attack = {}, attacks.pgd(steps=2 if self.options.tiny else 10)
        images, labels = (values.to(self.device) for values in scenes(4, 32 if self.options.tiny else 128))
        for setting in ("default", "cudnn.deterministic"):
            torch.backends.cudnn.deterministic = setting != "default"
            for name in ("deeplabv3plus", "fpn", "segformer"):
                network = freeze(TrainedModel(f"embedded:scenes_{name}")).to(self.device)

                def run(rows: slice, network: nn.Module = network) -> Tensor:
                    return attack(network, images[rows], labels[rows], range(4)[rows])

                one, two = run(slice(4)), run(slice(4))
                single, again = (torch.cat([run(slice(n, n + 1)) for n in range(4)]) for _ in range(2))
                pairs = {"two runs": (one, two), "batches of 4 and 1": (one, single), "two runs of 1": (single, again)}
                rows[f"{name}, {setting}"] = {
                    title: round(float((a != b).float().mean()), 5) for title, (a, b) in pairs.items()
                }
                self.save(share_of_values_that_differ=rows)
        torch.backends.cudnn.deterministic = False
        self.exact(images, labels)

    def exact(self, images: Tensor, labels: Tensor) -> None:
        """With `exact`, nothing may differ; and what it costs."""
        views, found = [attacks.InputDiversity(), attacks.RandomAffine()], {}
        for name, engine in product(("deeplabv3plus", "fpn", "segformer"), ("eager", "fused")):
            source = TrainedModel(f"embedded:scenes_{name}")

            def run(size: int, source: nn.Module = source, exact: bool = True, engine: Any = engine) -> Tensor:
                attack = attacks.pgd(steps=2 if self.options.tiny else 10, input_transforms=views)
                module = AttackModule(source, attack, engine=engine, exact=exact).to(self.device)
                batches = [
                    {"image": images[n : n + size], "mask": labels[n : n + size], "index": torch.arange(n, n + size)}
                    for n in range(0, 4, size)
                ]
                outputs = [module.predict_step(batch, number) for number, batch in enumerate(batches)]
                return torch.cat([output.adversarial for output in outputs])

            one = run(4)
            for title, other in {"two runs": run(4), "batches of 4 and 1": run(1)}.items():
                if not torch.equal(one, other):
                    share = float((one != other).float().mean())
                    self.fault(f"exact, {name}, {engine}, {title}: {share:.2g} of the values differ")
            if engine == "eager":
                times = []
                for exact in (True, False):
                    begin = clock(images)
                    run(1, exact=exact)
                    times.append(clock(images) - begin)
                found[name] = {"seconds": round(times[0], 3), "without exact": round(times[1], 3)}
                self.save(exact=found)

    def whole(self, what: str) -> None:
        """A whole run, and how busy the GPU is meanwhile."""
        busy, stop, begin = [], threading.Event(), time.monotonic()

        def watch() -> None:
            while not stop.wait(0.1):
                busy.append(utilization())

        if self.cuda:
            threading.Thread(target=watch, daemon=True).start()
        with tempfile.TemporaryDirectory() as results:
            words = [*RUNS[what], f"--trainer.accelerator={'gpu' if self.cuda else 'cpu'}", "--trainer.devices=1"]
            if words[0] == "predict":
                words += [f"--results={results}", "--run_name=run"]
            else:
                words += [f"--trainer.default_root_dir={results}"]
            if words[0] == "universal":
                words += [f"--model.file={results}/universal.pt"]
            words += ["--data.limit=2"] * (self.options.tiny and words[0] == "predict")
            process = subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, capture_output=True, text=True)
            stop.set()
            # From the first batch to the last: a run begins with imports and ends with tables.
            working = [number for number, percent in enumerate(busy) if percent]
            inside = busy[working[0] : working[-1] + 1] if working else []
            percent = round(sum(inside) / len(inside), 1) if inside else None
            self.save(took=round(time.monotonic() - begin, 1), gpu_percent_from_first_to_last_batch=percent)
            if self.cuda and what == "large" and (percent is None or percent < BUSY):
                self.fault(f"the GPU was busy {percent} % of the time from the first batch to the last, not {BUSY} %")
            if process.returncode:
                self.fault(f"exit code {process.returncode}: {process.stderr[-300:]}")
            elif words[0] == "predict":
                report = json.loads((Path(results) / "run" / "transfer.json").read_text())
                self.save(**{key: report[key] for key in ("device", "seconds", "peak_memory_mb_per_image")})
                self.save(
                    miou={row["target"]: (row["clean_miou"], row["adversarial_miou"]) for row in report["targets"]}
                )


SEGFORMER = {
    "segformer-b0": (
        lambda: _calibrated(lambda: smp.Segformer("mit_b0", encoder_weights=None, classes=19), 19), 19, (2, 512, 512)
    )
}  # fmt: skip


class Attention(nn.Module):
    """Self-attention of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(64, 192)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mix(x.flatten(2).mT).unflatten(2, (3, 2, 32)).permute(2, 0, 3, 1, 4)
        return x + F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2).mT.unflatten(2, x.shape[2:])


def utilization() -> int:
    """Percent of the last moment in which the GPU computed."""
    try:
        return torch.cuda.utilization()
    except Exception:  # it needs another package
        words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
        return int(found[0]) if found and found[0].isdigit() else 0


def settings_of(preset: Callable[..., Any]) -> dict[str, Any]:
    """Few steps and samples."""
    return ({} if preset is attacks.fgsm else {"steps": 4}) | FEW.get(preset.__name__, {})


def source_transforms(attack: object) -> list[Any]:
    """Those of an attack, or of the one inside of it."""
    inner = getattr(attack, "attack", None)
    return [*getattr(attack, "source_transforms", [])] or (source_transforms(inner) if inner is not None else [])


def small(seed: int, attention: bool = False, classes: int = 5) -> SegmentationModel:
    """A small network of random weights."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 64, 3, 4, 1, bias=False), nn.BatchNorm2d(64), nn.GELU(), *[Attention()] * attention]
    return SegmentationModel(nn.Sequential(*layers, nn.Conv2d(64, classes, 1)), classes, name=f"small{seed}")


def scenes(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Drawn scenes and their labels."""
    dataset = SyntheticScenes(count=count, size=size, seed=3)
    items = [dataset[number] for number in range(count)]
    images = [torch.from_numpy(item.image).permute(2, 0, 1) / 255 for item in items]
    return torch.stack(images), torch.stack([torch.from_numpy(item.mask).long() for item in items])


if __name__ == "__main__":
    main()
