"""The published weights: file, address, size, SHA-256, licence.

The two stage-wise checkpoints that the authors also published (``vqgan_code1024.pth``, ``codeformer_stage2.pth``) are
left out: no public source states their hash.
"""

from __future__ import annotations

from dataclasses import dataclass

_NTU = "NTU S-Lab License 1.0 (non-commercial): https://github.com/sczhou/CodeFormer/blob/master/LICENSE"
_MIT = "MIT: https://github.com/xinntao/facexlib/blob/master/LICENSE"
_BSD = "BSD-3-Clause: https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE"
_CODEFORMER = "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/"
_REALESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
_ONE_SOURCE = "its SHA-256 is stated by one public source only"


@dataclass(frozen=True)
class Weights:
    """One published file. ``size`` in bytes, ``sha256`` in hexadecimal, ``folder`` as the original lays it out."""

    name: str
    file: str
    folder: str
    url: str
    size: int
    sha256: str
    licence: str
    group: str
    purpose: str
    note: str = ""


WEIGHTS: tuple[Weights, ...] = (
    Weights(
        name="codeformer",
        file="codeformer.pth",
        folder="CodeFormer",
        url=_CODEFORMER + "codeformer.pth",
        size=376637898,
        sha256="1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
        licence=_NTU,
        group="restoration",
        purpose="restore faces",
    ),
    Weights(
        name="codeformer_colorization",
        file="codeformer_colorization.pth",
        folder="CodeFormer",
        url=_CODEFORMER + "codeformer_colorization.pth",
        size=372359475,
        sha256="4f041f194fe17cc128d7c76526fe45689079ce5f5811e1441ccfd3d5aec4693d",
        licence=_NTU,
        group="colorization",
        purpose="colorize grey faces",
        note=_ONE_SOURCE,
    ),
    Weights(
        name="codeformer_inpainting",
        file="codeformer_inpainting.pth",
        folder="CodeFormer",
        url=_CODEFORMER + "codeformer_inpainting.pth",
        size=370786611,
        sha256="b0d1b868c3dacf75d637bbcc0d4b3dd4ce2a064a338dfb4d35c740d3b4ae8797",
        licence=_NTU,
        group="inpainting",
        purpose="fill holes in faces",
    ),
    Weights(
        name="retinaface_resnet50",
        file="detection_Resnet50_Final.pth",
        folder="facelib",
        url=_FACEXLIB + "v0.1.0/detection_Resnet50_Final.pth",
        size=109497761,
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        licence=_MIT,
        group="detection",
        purpose="find faces",
    ),
    Weights(
        name="retinaface_mobile0.25",
        file="detection_mobilenet0.25_Final.pth",
        folder="facelib",
        url=_FACEXLIB + "v0.1.0/detection_mobilenet0.25_Final.pth",
        size=1789735,
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        licence=_MIT,
        group="detection",
        purpose="find faces, small",
        note="not needed: the package carries this network as ONNX",
    ),
    Weights(
        name="parsenet",
        file="parsing_parsenet.pth",
        folder="facelib",
        url=_FACEXLIB + "v0.2.2/parsing_parsenet.pth",
        size=85331193,
        sha256="3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        licence=_MIT,
        group="parsing",
        purpose="outline faces, slow",
    ),
    Weights(
        name="bisenet",
        file="parsing_bisenet.pth",
        folder="facelib",
        url=_FACEXLIB + "v0.2.0/parsing_bisenet.pth",
        size=53289463,
        sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
        licence=_MIT,
        group="parsing",
        purpose="outline faces",
    ),
    Weights(
        name="realesrgan_x2plus",
        file="RealESRGAN_x2plus.pth",
        folder="realesrgan",
        url=_REALESRGAN + "v0.2.1/RealESRGAN_x2plus.pth",
        size=67061725,
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        licence=_BSD,
        group="upsampling",
        purpose="upsample backgrounds 2x",
    ),
    Weights(
        name="realesrgan_x4plus",
        file="RealESRGAN_x4plus.pth",
        folder="realesrgan",
        url=_REALESRGAN + "v0.1.0/RealESRGAN_x4plus.pth",
        size=67040989,
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        licence=_BSD,
        group="upsampling",
        purpose="upsample backgrounds 4x",
    ),
    Weights(
        name="realesr_general_x4v3",
        file="realesr-general-x4v3.pth",
        folder="realesrgan",
        url=_REALESRGAN + "v0.2.5.0/realesr-general-x4v3.pth",
        size=4885111,
        sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        licence=_BSD,
        group="upsampling",
        purpose="upsample backgrounds 4x, small",
    ),
)
GROUPS = ("restoration", "colorization", "inpainting", "detection", "parsing", "upsampling")
#: SHA-256 of the files that the package carries. Whoever replaces one writes its ``sha256sum`` here.
BUNDLED = {
    "compact.safetensors": "b706674537e61cc77f16ed5336d694f555d7283aa99e3e0f470e43c55c9d7b8e",
    "compact_inpainting.safetensors": "34df2922efee011c39fb0ad205e1ace35a69f9e0ea31300ef46642654348a8c9",
    "compact_encoder.onnx": "1aae4558abf442aa52415a92548f53a14b22fac022a74d40b8e5a75ae334aecb",
    "compact_decoder.onnx": "5b10da86f12fa75e784e7d790612e4bcbb9bad0f07951c9035928765d3876a14",
    "compact_inpainting_encoder.onnx": "6b8bbfcad250564b754d41b7fa119bbf2cab43deda8de0752c7ce40259acc810",
    "compact_inpainting_decoder.onnx": "eefdec1fb937d80ab397bfbf7647f7a9dd6be57d4a4de24f7ac08a47f3f23194",
    "scratches.safetensors": "0932480cd871908e325ba10f4e6e2b3b8f7d1762ede68bcc9cebb4595cf3818b",
    "retinaface_mobile0.25.onnx": "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5",
}
