"""From a finished run to a server: the exported model, what serves it, and clients."""

from kerasmlp.utils.lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(__name__, __file__)
