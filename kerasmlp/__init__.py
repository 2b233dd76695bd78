"""Small residual MLPs on embeddings: accurate, fast, and honest about what they do not know.

Public names load when they are first used, so that `import kerasmlp` costs
nothing; `__init__.pyi` lists them.
"""

from kerasmlp.utils.lazy import lazy_names

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy_names(__name__, __file__)
