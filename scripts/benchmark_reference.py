"""The published program beside this one: its network, and whole processes over the same pictures, start included.

``benchmark.py --reference PATH`` calls this. PATH is a checkout of github.com/sczhou/CodeFormer, which stays as it is:
its code is copied into a temporary folder. Weight files that it lacks are made there with random numbers, by the
program's own classes, since a network's speed does not depend on its weights. A random detector runs and finds
nothing; it is given the faces that this program finds, so that both have the same work.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from against import INPUTS, Run, run_once

CASES = ("network", "start", "pictures", "crops")
PICTURES = CROPS = 10
COUNTS = {"start": ("whole_imgs", 1), "pictures": ("whole_imgs", PICTURES), "crops": ("cropped_faces", CROPS)}
NETWORK, DETECTOR = "CodeFormer/codeformer.pth", "facelib/detection_Resnet50_Final.pth"
WEIGHTS = (NETWORK, DETECTOR, "facelib/parsing_parsenet.pth")
PARTS = ("basicsr", "facelib", "inference_codeformer.py")


@dataclass(frozen=True)
class Beside:
    """One case: the published program, this one with the published network, and with the bundled one."""

    case: str
    published: Run
    same_network: Run
    bundled: Run


# What runs in the published program's place has its folder as the current one, and first in sys.path.
_MAKE = """
    # Build the networks by the program's own classes, and save what it would load.
    import sys
    import torch
    sys.path.insert(0, "")
    torch.manual_seed(0)
    for name in sys.argv[1:]:
        if "codeformer" in name:
            from basicsr.archs.codeformer_arch import CodeFormer
            net = CodeFormer(
                dim_embd=512, codebook_size=1024, n_head=8, n_layers=9, connect_list=["32", "64", "128", "256"])
            state = {"params_ema": net.state_dict()}
        elif "parsenet" in name:
            from facelib.parsing.parsenet import ParseNet
            state = ParseNet(in_size=512, out_size=512, parsing_ch=19).state_dict()
        else:
            from facelib.detection.retinaface.retinaface import RetinaFace
            state = RetinaFace(network_name="resnet50").state_dict()
            for key, value in state.items():
                if key.startswith("ClassHead") and key.endswith("weight"):
                    value.zero_()
                elif key.startswith("ClassHead"):  # background and face by turns: nothing is one
                    value.copy_(torch.tensor([9.0, -9.0]).repeat(len(value) // 2))
        torch.save(state, "weights/" + name)
"""

_PROGRAM = """
    # The published program. Its detector runs; with FACES the answer is what stands there, one entry a picture.
    import json, runpy, sys
    sys.path.insert(0, "")
    faces = iter(json.loads(sys.argv[1]))
    del sys.argv[1]
    if faces.__length_hint__():
        import numpy as np
        from facelib.detection.retinaface import retinaface
        detect = retinaface.RetinaFace.detect_faces
        def detect_faces(self, image, *args, **kwargs):
            detect(self, image, *args, **kwargs)
            width, found = next(faces)
            rows = np.array(found, np.float32).reshape(-1, 15) * (image.shape[1] / width)
            rows[:, 4] = 0.99
            return rows
        retinaface.RetinaFace.detect_faces = detect_faces
    sys.argv[0] = "inference_codeformer.py"
    runpy.run_path(sys.argv[0], run_name="__main__")
"""

_NETWORK = """
    # The published program's package imports all of basicsr; its network needs a logger and a registry of it.
    import logging, sys, time, types
    device, w, repeats = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    for name in ("basicsr", "basicsr.archs", "basicsr.utils"):
        package = types.ModuleType(name)
        package.__path__ = [name.replace(".", "/")]
        sys.modules[name] = package
    sys.path.insert(0, "")
    sys.modules["basicsr.utils"].get_root_logger = logging.getLogger
    import torch
    from basicsr.archs.codeformer_arch import CodeFormer
    net = CodeFormer(dim_embd=512, codebook_size=1024, n_head=8, n_layers=9, connect_list=["32", "64", "128", "256"])
    net = net.to(device).eval()
    x = torch.rand(1, 3, 512, 512, device=device) * 2 - 1
    best = None
    with torch.no_grad():
        for turn in range(repeats + 1):
            start, cpu = time.perf_counter(), time.process_time()
            net(x, w=w, adain=True)[0].cpu()
            spent = time.process_time() - cpu, time.perf_counter() - start
            best = spent if turn < 2 else min(best, spent)
    print(*best)
"""


def copied(checkout: Path, folder: Path) -> tuple[Path, list[str]]:
    """Copy a checkout's code below ``folder``, and give it weights; return the copy and the files with random numbers.

    Exits where the checkout is not one, or cannot build its networks.
    """
    missing = [part for part in PARTS if not (checkout / part).exists()]
    if missing:
        sys.exit(
            f"--reference {checkout}: this folder lacks {', '.join(missing)}, "
            "which a checkout of github.com/sczhou/CodeFormer has"
        )
    copy = folder / "published"
    copy.mkdir()
    for part in PARTS:
        source = checkout / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
    random = []
    for name in WEIGHTS:
        (copy / "weights" / name).parent.mkdir(parents=True, exist_ok=True)
        if (checkout / "weights" / name).is_file():
            (copy / "weights" / name).symlink_to((checkout / "weights" / name).resolve())
        else:
            random.append(name)
    if random:
        script(copy, _MAKE, random)
    return copy, random


def script(copy: Path, code: str, arguments: Sequence[str]) -> str:
    """Run a script of the above in the copy, and return what it prints. Exits when it fails."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"--reference: the published program did not run: {(done.stderr.strip() or 'no message')[-500:]}")
    return done.stdout


def faces_of(paths: Sequence[Path]) -> list[tuple[int, list[list[float]]]]:
    """Return each picture's width, and its faces as the published detector has them: box, score, five landmarks."""
    from codeformer.faces.find import find_faces, make_detector
    from codeformer.images.picture import read_picture, to_uint8

    detector = make_detector("retinaface_mobile0.25", device="cpu")
    result = []
    for path in paths:
        rgb = to_uint8(read_picture(path).rgb)
        faces = find_faces(rgb, detector)
        rows = [[*face.box, face.score, *np.asarray(face.landmarks).ravel()] for face in faces]
        result.append((rgb.shape[1], [[float(value) for value in row] for row in rows]))
    return result


def inputs_of(case: str, folder: Path, *, quick: bool) -> list[Path]:
    """Return the pictures of a case, made below ``folder``."""
    source, count = COUNTS[case]
    target = folder / case
    target.mkdir()
    files = sorted(path for path in (INPUTS / source).iterdir() if path.suffix in (".jpg", ".png"))
    return [
        Path(shutil.copy(files[index % len(files)], target / f"{index:02}{files[index % len(files)].suffix}"))
        for index in range(min(count, 2) if quick else count)
    ]


def network(copy: Path, device: str, w: float, repeats: int, own: Callable[[str], Run]) -> Beside:
    """Return one face of 512 x 512 through the networks; ``own`` measures ours, by the name of the network."""
    cpu, seconds = (float(word) for word in script(copy, _NETWORK, [device, str(w), str(repeats)]).split()[-2:])
    return Beside("network", Run(seconds, cpu), own("published"), own("compact"))


def commands(
    case: str, copy: Path, folder: Path, faces: Sequence[object], out: Path, device: str, w: float
) -> list[list[str]]:
    """Return the commands of a case: the published program, ours with its network, ours with the bundled one.

    ``faces``: what the published detector is to find in each picture; nothing where its own answer counts.
    """
    both = ["-i", str(folder / case), "-o", str(out), "-w", str(w), "-s", "2"]
    both += ["--has_aligned"] if case == "crops" else []
    own = [sys.executable, "-m", "codeformer", "restore", *both, "--device", device, "--quiet"]
    return [
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), json.dumps(faces), *both],
        [*own, "--model", str(copy / "weights" / NETWORK)],
        own,
    ]


def program(
    case: str, copy: Path, random: Sequence[str], folder: Path, device: str, w: float, repeats: int, *, quick: bool
) -> Beside:
    """Run one case in the published program and in this one, by turns, and return the best runs by CPU time."""
    paths = inputs_of(case, folder, quick=quick)
    faces = faces_of(paths) if DETECTOR in random and case != "crops" else []
    out = folder / f"{case}-results"
    three = commands(case, copy, folder, faces, out, device, w)
    runs: list[list[Run]] = [[], [], []]
    for turn in range(repeats):
        for index in (0, 1, 2) if turn % 2 == 0 else (2, 1, 0):
            out.mkdir()
            tree = copy if index == 0 else INPUTS.parent
            runs[index].append(run_once(three[index], tree, out, cwd=tree))
            check(out, paths, aligned=case == "crops", published=index == 0)
            shutil.rmtree(out)
    published, same, bundled = (min(own, key=lambda run: run.cpu_seconds) for own in runs)
    return Beside(case, published, same, bundled)


def check(out: Path, paths: Sequence[Path], *, aligned: bool, published: bool) -> None:
    """Exit where a run did not do its work: the published program reports success when it fails."""
    folder = "restored_faces" if aligned else "final_results"
    results = {path.stem for path in (out / folder).glob("*.png")}
    lacking = [path.name for path in paths if path.stem not in results]
    faces = list((out / "restored_faces").glob("*"))
    if lacking or not faces:
        who = "the published program" if published else "codeformer restore"
        sys.exit(f"{who} left no result of {', '.join(lacking) or 'any face'}")


def measure(
    checkout: Path,
    cases: Sequence[str],
    folder: Path,
    *,
    device: str,
    w: float,
    quick: bool,
    repeats: int,
    own: Callable[[str], Run],
) -> Iterator[Beside]:
    """Yield the cases, one after another.

    Args:
        checkout: of the published repository.
        cases: of ``CASES``.
        folder: an empty one, for the copy, inputs and results.
        device: as ``--device``.
        w: fidelity weight.
        quick: whether each program gets two pictures only.
        repeats: how often each program runs; the best run counts.
        own: measures one face through our network of that name, published or compact.
    """
    copy, random = copied(checkout, folder)
    if random:
        print(f"random weights: {', '.join(random)}", file=sys.stderr, flush=True)
    for case in cases:
        if case == "network":
            yield network(copy, device, w, repeats, own)
        else:
            yield program(case, copy, random, folder, device, w, repeats, quick=quick)


def table(rows: Iterator[Beside]) -> Iterator[str]:
    """Yield the lines of a table. Each cell has seconds by the clock and, in brackets, of CPU time."""
    heads = ("case", "published program", "this, published network", "times", "this, bundled network", "times")
    yield f"| {' | '.join(heads)} |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        cells = [row.case, _cell(row.published)]
        for run in (row.same_network, row.bundled):
            times = (row.published.seconds / run.seconds, row.published.cpu_seconds / run.cpu_seconds)
            cells += [_cell(run), f"{times[0]:.1f} ({times[1]:.1f})"]
        yield f"| {' | '.join(cells)} |"


def _cell(run: Run) -> str:
    return f"{run.seconds:.2f} ({run.cpu_seconds:.2f})"
