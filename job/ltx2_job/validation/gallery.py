"""validation/index.html: the sample clips of all steps on one page, newest first."""

import html
from pathlib import Path
from urllib.parse import quote

from ltx2_job.workspace import write_atomic

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: 1rem 0; }
.clips { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figcaption { color: #777; }
video { max-width: 100%; max-height: 24rem; background: #000; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } }
"""


def write_gallery(folder: Path, title: str, prompt: str) -> Path:
    """Write `folder`/index.html over every clip step-*/*.mp4 below it; returns its path. User text is escaped."""
    sections = [_section(step) for step in sorted(folder.glob("step-*"), reverse=True) if any(step.glob("*.mp4"))]
    page = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>
<style>{STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<p>{html.escape(prompt)}</p>
{"".join(sections)}</body>
</html>
"""
    path = folder / "index.html"
    write_atomic(path, page)
    return path


def _section(step: Path) -> str:
    number = int(step.name.removeprefix("step-"))
    clips = "".join(
        f'<figure><video controls loop muted playsinline preload="metadata" src="{quote(f"{step.name}/{clip.name}")}">'
        f"</video><figcaption>{html.escape(clip.stem)}</figcaption></figure>\n"
        for clip in sorted(step.glob("*.mp4"))
    )
    return f'<section><h2>step {number}</h2>\n<div class="clips">{clips}</div></section>\n'
