"""The words of the page in the browser's language, where it is one of these; English otherwise.

Labels are chosen by Gradio in the browser (``WORDS``), sentences that depend on the work by the server (``SENTENCES``).
"""

from __future__ import annotations

import re

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "restore": "Restore",
        "colorize": "Colorize",
        "inpaint": "Inpaint",
        "upscale": "Upscale",
        "film": "Film",
        "pictures": "Pictures: drop, paste or choose",
        "picture": "Picture: drop, paste or choose",
        "which": "Picture in view",
        "preset": "Preset",
        "w": "Fidelity w: 0 a clean face, maybe another person's; 1 closest to the picture",
        "scale": "Scale of the result",
        "background": "Enlarge the background by Real-ESRGAN",
        "faces": "Faces: click to switch on and off",
        "view": "Before and after",
        "report": "Report",
        "paint": "Paint",
        "fill": "Fill what is painted over",
        "enlarge": "Enlarge",
        "film_file": "Film",
        "frames": "Frames of the preview",
        "preview": "Preview",
        "start": "Restore the film",
        "cancel": "Cancel",
        "resume": "Go on",
    },
    "de": {
        "restore": "Restaurieren",
        "colorize": "Kolorieren",
        "inpaint": "Ausfüllen",
        "upscale": "Vergrößern",
        "film": "Film",
        "pictures": "Bilder: ablegen, einfügen",
        "picture": "Bild: ablegen, einfügen",
        "which": "Gezeigtes Bild",
        "preset": "Voreinstellung",
        "w": "Treue w: 0 ein sauberes Gesicht, vielleicht ein anderes; 1 dem Bild am nächsten",
        "scale": "Maßstab des Ergebnisses",
        "background": "Hintergrund mit Real-ESRGAN vergrößern",
        "faces": "Gesichter: Klick für an/aus",
        "view": "Vorher und nachher",
        "report": "Bericht",
        "paint": "Malen",
        "fill": "Übermaltes ausfüllen",
        "enlarge": "Vergrößern",
        "film_file": "Film",
        "frames": "Bilder der Vorschau",
        "preview": "Vorschau",
        "start": "Film restaurieren",
        "cancel": "Abbrechen",
        "resume": "Fortsetzen",
    },
    "zh-CN": {
        "restore": "修复",
        "colorize": "上色",
        "inpaint": "补全",
        "upscale": "放大",
        "film": "视频",
        "pictures": "图片：拖放、粘贴或选择",
        "picture": "图片：拖放、粘贴或选择",
        "which": "当前图片",
        "preset": "预设",
        "w": "保真度 w：0 最干净，但可能变成别人；1 最接近原图",
        "scale": "输出倍数",
        "background": "用 Real-ESRGAN 放大背景",
        "faces": "人脸：点击开启或关闭",
        "view": "修复前后",
        "report": "报告",
        "paint": "涂抹",
        "fill": "补全涂抹处",
        "enlarge": "放大",
        "film_file": "视频",
        "frames": "预览帧数",
        "preview": "预览",
        "start": "修复视频",
        "cancel": "取消",
        "resume": "继续",
    },
}

SENTENCES: dict[str, dict[str, str]] = {
    "en": {
        "balanced": "balanced: w 0.5",
        "faithful": "faithful: w 0.9",
        "bad": "very bad picture: w 0.2",
        "print": "print: w 0.7, twice as large",
        "on": "{number} on",
        "off": "{number} off",
        "all": "{count} pictures (ZIP)",
        "whole": "100 %",
        "no_picture": "no picture yet: drop one here",
        "no_film": "no film yet: drop one here",
        "no_paint": "nothing is painted yet: paint over what is to be filled",
        "no_face": "no face found; only resized",
        "too_many": "{count} pictures are too many for the page ({most}): use codeformer restore -i",
        "failed_here": "the server failed ({kind}); its own messages say more",
        "waiting": "waiting",
        "running": "running",
        "done": "done",
        "failed": "failed",
        "cancelled": "cancelled",
        "frames": "{done} frames",
        "frames_of": "{done} of {total} frames",
        "rate": "{rate} frames/s",
        "left": "{time} left",
    },
    "de": {
        "balanced": "ausgewogen: w 0,5",
        "faithful": "treu: w 0,9",
        "bad": "sehr schlechtes Bild: w 0,2",
        "print": "Druck: w 0,7, doppelt so groß",
        "on": "{number} an",
        "off": "{number} aus",
        "all": "{count} Bilder (ZIP)",
        "whole": "100 %",
        "no_picture": "noch kein Bild: hier ablegen",
        "no_film": "noch kein Film: hier ablegen",
        "no_paint": "noch nichts übermalt: übermalen, was ausgefüllt werden soll",
        "no_face": "kein Gesicht gefunden; nur die Größe ist geändert",
        "too_many": "{count} Bilder sind zu viele für die Seite ({most}): codeformer restore -i nimmt sie",
        "failed_here": "der Server ist gescheitert ({kind}); mehr steht in seinen Meldungen",
        "waiting": "wartet",
        "running": "läuft",
        "done": "fertig",
        "failed": "gescheitert",
        "cancelled": "abgebrochen",
        "frames": "{done} Bilder",
        "frames_of": "{done} von {total} Bildern",
        "rate": "{rate} Bilder/s",
        "left": "noch {time}",
    },
    "zh-CN": {
        "balanced": "均衡：w 0.5",
        "faithful": "忠实：w 0.9",
        "bad": "画质很差：w 0.2",
        "print": "打印：w 0.7，放大两倍",
        "on": "{number} 开启",
        "off": "{number} 关闭",
        "all": "{count} 张图片（ZIP）",
        "whole": "100 %",
        "no_picture": "还没有图片：请拖放到这里",
        "no_film": "还没有视频：请拖放到这里",
        "no_paint": "还没有涂抹：请涂抹需要补全的部分",
        "no_face": "未找到人脸；仅调整了尺寸",
        "too_many": "{count} 张图片超出页面上限（{most}）：请用 codeformer restore -i",
        "failed_here": "服务器出错（{kind}）；详情见服务器的消息",
        "waiting": "等待中",
        "running": "处理中",
        "done": "完成",
        "failed": "失败",
        "cancelled": "已取消",
        "frames": "{done} 帧",
        "frames_of": "{done} / {total} 帧",
        "rate": "{rate} 帧/秒",
        "left": "剩余 {time}",
    },
}


def language_of(accepted: str | None) -> str:
    """Return the language that a browser prefers, as in ``SENTENCES``.

    Args:
        accepted: its header ``Accept-Language``. As Gradio does for the labels, only the first language counts.
    """
    first = re.split("[,;]", accepted or "")[0].strip().lower()
    main, _, region = first.partition("-")
    if main == "de":
        return "de"
    if main == "zh" and region in ("", "cn", "sg", "hans", "hans-cn", "hans-sg"):  # others read other letters
        return "zh-CN"
    return "en"


def sentence(language: str, key: str, **values: object) -> str:
    """Return a sentence in a language of ``SENTENCES``, with its values."""
    return SENTENCES[language][key].format(**values)
