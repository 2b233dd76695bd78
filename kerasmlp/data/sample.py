"""The sample that comes with the package.

Example:

>>> from kerasmlp import SAMPLE, EmbeddingStore
>>> store = EmbeddingStore.open(SAMPLE)
>>> len(store), store.info.licence
(18500, 'CC BY 4.0')
"""

from pathlib import Path

SAMPLE = Path(__file__).with_name("fairface_sample.h5")
"""The embedding store that comes with the package: 18,500 faces of FairFace, CC BY 4.0."""
