"""A search in a process of its own: `tiny_tune.py STORE RUN_DIR SPACE MAX_EPOCHS [WORKERS]`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "experiments"))

from test_tuning import TINY, plan_of

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.tuning.space import SPACES
from kerasmlp.experiments.tuning.tune import tune

if __name__ == "__main__":
    SPACES["tiny"] = TINY
    path, folder, space, max_epochs, *workers = sys.argv[1:]
    plan = plan_of(EmbeddingStore.open(path), space=space, max_epochs=int(max_epochs))
    tune(path, plan, folder, workers=int(workers[0]) if workers else None, resume=True)
