"""``/docs``: the OpenAPI description as one plain page, without scripts from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; padding-bottom: .3rem }
code { font: 15px ui-monospace, monospace } .verb { font-weight: 700 }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top }
div { overflow-x: auto }
"""


def as_html(schema: dict[str, Any]) -> str:
    """Return the page."""
    info = schema["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>", f"<p>{escape(info['description'])} "]
    parts.append('The same for programs: <a href="openapi.json">openapi.json</a>. The page: <a href="./">here</a>.</p>')
    for path, verbs in schema["paths"].items():
        for verb, one in verbs.items():
            parts.append(f'<h2><span class="verb">{verb.upper()}</span> <code>{escape(path)}</code></h2>')
            parts.append(f"<p>{escape(one.get('summary', ''))}. {escape(one.get('description', ''))}</p>")
            parts.append(_fields(one, schema))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>codeformer: API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _fields(one: dict[str, Any], schema: dict[str, Any]) -> str:
    content = one.get("requestBody", {}).get("content", {})
    rows = []
    for body in content.values():
        form = _resolved(body.get("schema", {}), schema)
        needed = set(form.get("required", []))
        for name, field in form.get("properties", {}).items():
            default = "needed" if name in needed else escape(str(field.get("default", "")))
            rows.append(
                f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(field))}</td><td>{default}</td>"
                f"<td>{escape(field.get('description', ''))}</td></tr>"
            )
    if not rows:
        return ""
    return f"<div><table><tr><th>field</th><th>kind</th><th>default</th><th></th></tr>{''.join(rows)}</table></div>"


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = part.get("$ref", "").rsplit("/", 1)[-1]
    return schema["components"]["schemas"][name] if name else part


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " or ".join(kind for part in field["anyOf"] if (kind := _kind(part)) and kind != "null")
    if field.get("type") == "array":
        return f"{_kind(field['items'])}, repeatable"
    if "contentMediaType" in field or field.get("format") == "binary":
        return "file"
    return str(field.get("type", ""))
