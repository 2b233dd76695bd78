"""A hook of MkDocs: the pages beside `docs/`, README first, join the site; links follow."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
BESIDE = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")


def on_files(files, config):
    for name in (*BESIDE, "data/README.md"):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    front = (ROOT / "README.md").read_text(encoding="utf-8").replace('src="docs/', 'src="')
    files.append(File.generated(config, "index.md", content=front))
    return files


def on_page_markdown(markdown, page, **_):
    name = page.file.src_uri
    if name == "index.md" or name in BESIDE:
        return markdown.replace("](docs/", "](").replace("](README.md", "](index.md")
    return markdown.replace("](../README.md", "](index.md").replace("](../", "](")
