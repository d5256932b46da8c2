"""``codeformer help TOPIC``, and the examples under every command's ``--help``."""

from __future__ import annotations

import argparse
import difflib

from codeformer.cli.options import commands_of
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode, UsageError

EXAMPLES = {
    "restore": (
        ("one photograph, result in results/photo_0.5/final_results", "codeformer restore photo.jpg"),
        ("a folder with its folders, twice as large", "codeformer restore album --recursive -w 0.7 -s 2 -o restored"),
    ),
    "colorize": (
        ("the faces of a grey photograph", "codeformer colorize grey.jpg"),
        (
            "half of the colour, the brightness as it is",
            "codeformer colorize grey.jpg --color_strength 0.5 --keep_luma",
        ),
    ),
    "inpaint": (
        ("fill what is white in a mask", "codeformer inpaint scratched.png --mask mask.png"),
        ("fill what was painted over in red", "codeformer inpaint painted.png --mask_color red"),
    ),
    "video": (
        ("a film, with its sound", "codeformer video clip.mp4 -w 0.8 -o restored.mp4"),
        ("eight frames, before and after, as a trial", "codeformer video clip.mp4 --preview 8"),
    ),
    "upscale": (
        ("four times as large", "codeformer upscale photo.jpg -o large"),
        ("a folder, twice as large, as WebP", "codeformer upscale album -o large -s 2 --ext webp"),
    ),
    "web": (
        ("the page, in your browser", "codeformer web --open"),
        ("for other machines too, with a token", "codeformer web --host 0.0.0.0 --token a-long-secret"),
    ),
    "download": (
        ("the published restoration weights", "codeformer download"),
        ("everything, for a machine without a network", "codeformer download --all --dir weights_to_carry"),
    ),
    "models": (
        ("what is here, and whether it is right", "codeformer models"),
        ("for programs", "codeformer models --json"),
    ),
    "train": (
        ("a trial of the first stage", "codeformer train --stage 1 --config tiny --data faces"),
        ("go on where a run stopped", "codeformer train --stage 1 --data faces --resume"),
    ),
    "evaluate": (
        ("the model at hand, on ten faces", "codeformer evaluate --data faces --limit 10"),
        ("a file of your own, with a sheet", "codeformer evaluate --model mine.safetensors --data faces -o out"),
    ),
    "align": (
        ("faces for training", "codeformer align photographs faces"),
        ("smaller ones too", "codeformer align photographs faces --min_size 128 --recursive"),
    ),
    "export": (
        ("one ONNX file with w as an input", "codeformer export -o codeformer.onnx"),
        ("encoder and decoder apart, half as large", "codeformer export -o face.onnx --split --precision fp16"),
    ),
    "report": (
        ("join the records of shards, or of very many inputs", "codeformer report restored"),
        ("one line for each input, for a spreadsheet", "codeformer report restored --format csv > restored.csv"),
    ),
    "doctor": (
        ("everything that a bug report needs", "codeformer doctor"),
        ("for programs", "codeformer doctor --json"),
    ),
    "help": (
        ("the topics", "codeformer help"),
        ("how to choose w", "codeformer help w"),
    ),
    "completion": (
        ("in this shell", 'eval "$(codeformer completion bash)"'),
        ("for all shells to come", "codeformer completion zsh > ~/.zfunc/_codeformer"),
    ),
}

TOPICS = {
    "w": """The fidelity weight, -w, is the one choice to make.

0 gives a clean face that may be another person's; 1 stays closest to the picture, with its flaws. Begin with the
default. Take more (0.7, 0.9) where the face changes too much, less (0.3) where it stays blurred. Large and sharp faces
bear a high w, small and damaged ones need a low one. `codeformer restore photo.jpg -w 0.3 0.5 0.7 --compare` makes a
result with each, named photo_w0.3 and so on, and one picture that shows them beside each other.

How much w changes depends on the model. The published one changes from 0 to 1 throughout; a small one may hardly change
between 0.5 and 1. A model may know its own default, the least w that it was trained for (less is refused), and the
least w that keeps the person (less gives a warning): `codeformer models` shows them.

--strength is another thing: it says how much of the restored face is shown. --strength 0.7 blends 7 parts of it with 3
of the picture as it was, which keeps some of its grain, and of its blur.""",
    "results": """Where results lie.

Without -o: results/<input name>_<w>. In that folder final_results holds the whole pictures, restored_faces and
cropped_faces the faces alone (--only_final leaves them out), compare before and after (--compare), and results.json the
report. For a single picture -o may name the result's file: `codeformer restore photo.jpg -o out.png` writes that and
nothing else. The same command run again goes on where it stopped; --overwrite does everything again. --dry_run says
what would be done, and writes nothing. No result ever replaces a file that is not codeformer's.""",
    "faces": """Which faces are restored.

All whose score is above --det_threshold. --face 2 takes the second from the left alone (--draw_box shows the numbers),
--max_faces 3 the three largest, --min_face_size 40 leaves smaller ones as they are, --max_face_size 800 larger ones.
Where none is found, lower the threshold, take another detector (--detection_model retinaface_resnet50), or say where
the eyes, nose and mouth are (--landmarks). --has_aligned takes each picture as one face, cut out and aligned as
`codeformer align` does.""",
    "models": """Which network works.

--model auto takes the published weights if they are here (`codeformer download`; they are for non-commercial use), else
the compact ones that the package carries. `codeformer models` shows what is here. compact, official or a file choose.
Weights lie in $CODEFORMER_WEIGHTS or --weights_dir, else in the user's cache folder.""",
    "speed": """What makes it faster.

A GPU, which --device auto finds. On a CPU the compact model is some thirty times faster than the published one (README,
Speed). --precision bf16 helps where the processor knows it (auto knows). Threads follow the cores that the process may
use; OMP_NUM_THREADS sets another number. Writing PNG takes long for large pictures: --ext jpg, --only_final.""",
    "settings": """Options in a file, and in the environment.

`codeformer restore --config restore.toml` reads options by their long names; the command line wins:

  device = "cpu"            for any command

  [restore]                 for this one
  fidelity_weight = 0.7
  only_final = true

`codeformer restore -w 0.7 --only_final --save_config restore.toml` writes such a file and does nothing else.
CODEFORMER_WEIGHTS is the weights folder, CODEFORMER_DEVICE the device, CODEFORMER_MIRROR where downloads come from.
(train has a --config of its own: its preset.)""",
    "codes": """Exit codes.

  0  all well                     4  weights missing or refused
  1  some inputs failed           5  out of memory
  2  wrong usage                  6  output cannot be written
  3  nothing could be read      129, 130, 143  ended by SIGHUP, Ctrl-C, SIGTERM""",
    "trouble": """When something goes wrong.

`codeformer doctor` tries a face on each device and prints what a bug report needs. --verbose says more, and shows the
place of an unexpected error. Each folder of results has a report, results.json, with the reason of every failure. The
same command goes on after whatever stopped it.""",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "help",
        help="explain a topic or a command",
        description=f"Explain a topic ({', '.join(TOPICS)}) or a command. Without a topic: say which there are.",
    )
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help="a topic or a command")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Print a topic, or a command's help. Raises UsageError for a name that is neither."""
    parser = args.parser
    commands = commands_of(parser)
    if args.topic is None:
        emit(parser.format_help().rstrip())
        emit("\ntopics of codeformer help TOPIC:")
        for name, text in TOPICS.items():
            emit(f"  {name:<10}  {text.splitlines()[0]}")
    elif args.topic in TOPICS and args.topic not in commands:
        emit(TOPICS[args.topic])
    elif args.topic in commands:
        emit(commands[args.topic].format_help().rstrip())
        if args.topic in TOPICS:
            emit(f"\n{TOPICS[args.topic]}")
    else:
        near = difflib.get_close_matches(args.topic, [*TOPICS, *commands], 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join([*TOPICS, *commands])}"
        raise UsageError(f"no topic or command is called {args.topic!r}; {hint}")
    return ExitCode.OK


def examples(command: str) -> str:
    """Return the examples of a command as the end of its ``--help``."""
    lines = ["examples:"]
    for what, words in EXAMPLES[command]:
        lines += [f"  {words}", f"      {what}"]
    return "\n".join(lines)
