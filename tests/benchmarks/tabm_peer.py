"""TabM as its own package trains it: a peer of `members.py`, in a process of its own.

    python tabm_peer.py DATA.npz ANSWERS.npz

DATA holds `x`, `y` (classes) to train on, `kept_x`, `kept_y` to stop by, and any `test_…` to
answer. 32 submodels, the package's default sizes, AdamW at 2e-3 with a decay of 3e-4, batches
of 256, the mean of the submodels' losses, until 16 epochs bring no better loss of the mean on
the rows kept back: the settings of its own example. ANSWERS holds probabilities
`(rows, submodels, classes)` for each `test_…`, `seconds` to train and `us_per_row` to answer.
"""

from __future__ import annotations

import copy
import sys
import time

import numpy as np
import torch
from tabm import TabM
from torch.nn.functional import cross_entropy

SUBMODELS, BATCH, PATIENCE, EPOCHS, ANSWERED = 32, 256, 16, 200, 1000


def answers(model, x):
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part).softmax(-1) for part in torch.from_numpy(x).split(ANSWERED)])


def main() -> None:
    torch.manual_seed(0)
    data = dict(np.load(sys.argv[1]))
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    kept_y = torch.from_numpy(data["kept_y"])
    classes = int(y.max()) + 1
    model = TabM.make(n_num_features=x.shape[1], d_out=classes, k=SUBMODELS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=3e-4)
    best, best_epoch, weights, started = np.inf, 0, None, time.time()
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            logits = model(x[rows]).flatten(0, 1)
            cross_entropy(logits, y[rows].repeat_interleave(SUBMODELS)).backward()
            optimizer.step()
        mean = answers(model, data["kept_x"]).mean(1)
        loss = float(-mean[torch.arange(len(kept_y)), kept_y].log().mean())
        print(f"epoch {epoch}: {loss:.4f}", file=sys.stderr, flush=True)
        if loss < best:
            best, best_epoch, weights = loss, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= PATIENCE:
            break
    seconds = time.time() - started
    model.load_state_dict(weights)
    found = {name: answers(model, rows) for name, rows in data.items() if name.startswith("test_")}
    times = []
    for _ in range(5):
        started = time.perf_counter()
        answers(model, data["kept_x"])
        times.append(time.perf_counter() - started)
    us_per_row = 1e6 * float(np.median(times)) / len(kept_y)
    np.savez(sys.argv[2], seconds=seconds, us_per_row=us_per_row, epochs=epoch + 1, **found)


if __name__ == "__main__":
    main()
