"""What the words of a command line ask for: arguments become option dataclasses, which check themselves."""

from __future__ import annotations

import argparse

from codeformer.cli.many import ray_options
from codeformer.errors import UsageError
from codeformer.options import (
    PERSON_DISTANCE,
    CanvasOptions,
    FaceOptions,
    FaceWork,
    ModelOptions,
    OutputOptions,
    RunOptions,
)
from codeformer.tasks.table import TASKS


def model_options(args: argparse.Namespace) -> ModelOptions:
    """Return the options of :func:`~codeformer.cli.options.add_model_options`. Raises UsageError naming the flag."""
    return ModelOptions(
        args.model, args.weights_dir, args.device, args.precision, args.batch_size, args.backend, args.compile
    )


def face_work(args: argparse.Namespace) -> FaceWork:
    """Return the options of a pipeline. Raises UsageError naming the flag."""
    none = (None, "", "None", "none")  # the original's "no background upsampler" is the word None
    bg_upsampler = None if args.bg_upsampler in none else str(args.bg_upsampler)
    upscale = args.upscale
    if upscale is None:
        upscale = 2.0 if bg_upsampler or args.face_upsample else 1.0
    given = args.fidelity_weight
    weights = given if isinstance(given, list) else [TASKS[args.task].default_w if given is None else given]
    return FaceWork(
        w=weights[0],
        more_w=tuple(weights[1:]),
        model=model_options(args),
        faces=FaceOptions(
            detection_model=args.detection_model,
            det_threshold=args.det_threshold,
            min_face_size=args.min_face_size,
            max_face_size=args.max_face_size,
            max_faces=args.max_faces,
            only_center_face=args.only_center_face,
            numbers=tuple(args.face),
            landmarks=tuple(args.landmarks),
            aligned=args.aligned,
            parsing=args.parsing,
            person=tuple(getattr(args, "person", ())),  # inpaint has neither
            person_distance=getattr(args, "person_distance", PERSON_DISTANCE),
            keep_occluders=getattr(args, "keep_occluders", False),
        ),
        canvas=CanvasOptions(upscale, bg_upsampler, args.face_upsample, args.bg_tile, args.draw_box),
        tone=args.tone,
        strength=args.strength if TASKS[args.task].blends else 1.0,
        scratches=getattr(args, "scratches", "off"),  # films and colorize have no such option
    )


def run_options(args: argparse.Namespace) -> RunOptions:
    """Return the options of a run over pictures. Raises UsageError naming the flag."""
    output = OutputOptions(
        output_path=args.output_path,
        suffix=args.suffix or None,
        ext=args.ext,
        quality=args.quality,
        png_level=args.png_level,
        compare=args.compare,
        only_final=args.only_final,
        no_face=args.no_face,
        resume=args.resume,
    )
    if args.draw_box and args.aligned:
        raise UsageError("--draw_box needs whole pictures: aligned crops have no boxes")
    return RunOptions(
        tuple(args.input_path),
        face_work(args),
        output,
        args.recursive,
        w_by_model=args.fidelity_weight is None,
        max_pixels=args.max_pixels,
        shard=args.shard,
        input_list=args.input_list,
        ray=ray_options(args),
    )
