import re
from pathlib import Path

from setuptools import setup

# What the README shows of the checkout, and links to, is not there where the package is shown.
readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
readme = re.sub(r"<img [^>]*>\n\n", "", readme)
readme = re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"\1", readme)

setup(long_description=readme)
