"""The paper's age network and training in plain eager PyTorch: the peer of the benchmarks.

As a script: `python torch_mlp.py STORE EPOCHS BATCH_SIZE OUTPUT` trains on the
years of a store, with 10% kept back and measured after every epoch.
`python torch_mlp.py --rounds BATCH_SIZE ROWS EPOCHS` trains that many epochs
on random rows for each line it reads, and prints samples per second.
`python torch_mlp.py --cross-validate STORE SEEDS FOLDS EPOCHS BATCH_SIZE FOLDER`
trains seeds × folds in this one process, on the rows that `cross-validate`
takes, and leaves weights and one JSON line per run in the folder.
`python torch_mlp.py --samples CLASSES BLOCKS FACES SAMPLES` draws MC-dropout
samples of random embeddings face by face for each line, and prints seconds.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn


class IC(nn.Sequential):
    def __init__(self, width: int):
        super().__init__(nn.BatchNorm1d(width), nn.Dropout(0.05))


class Residual(nn.Module):
    def __init__(self, width: int, *, first: bool):
        super().__init__()
        before = [] if first else [IC(width)]
        self.inner = nn.Sequential(
            *before, nn.Linear(width, width), nn.ReLU(), IC(width), nn.Linear(width, width)
        )

    def forward(self, x):
        return torch.relu(self.inner(x) + x)


def make_network(num_classes: int = 101, num_blocks: int = 2, width: int = 512) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(num_blocks):
        layers += [
            Residual(width, first=i == 0),
            IC(width),
            nn.Linear(width, width // 2),
            nn.ReLU(),
        ]
        width //= 2
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=0.00116701, weight_decay=0.000123372)


def make_loader(x, y, batch_size: int) -> torch.utils.data.DataLoader:
    data = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    return torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True)


def train_epoch(network, optimizer, loader) -> None:
    network.train()
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()


def read_years(store: str):
    import h5py
    import numpy as np

    with h5py.File(store) as file:
        x = file["embedding"][()].astype("float32")
        return x, np.clip(np.rint(file["labels/age_years"][()]), 0, 100).astype("int64")


@torch.no_grad()
def measure(network, x, y) -> dict[str, float]:
    network.eval()
    outputs, labels = network(torch.as_tensor(x)), torch.as_tensor(y)
    loss = nn.functional.cross_entropy(outputs, labels)
    return {"nll": float(loss), "accuracy": float((outputs.argmax(1) == labels).float().mean())}


def train(x, y, rest, kept, epochs: int, batch_size: int) -> nn.Module:
    network = make_network()
    optimizer = make_optimizer(network)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.394794)
    loader = make_loader(x[rest], y[rest], batch_size)
    for _ in range(epochs):
        train_epoch(network, optimizer, loader)
        schedule.step()
        measured = measure(network, x[kept], y[kept])
        print(f"loss {measured['nll']:.4f} accuracy {measured['accuracy']:.4f}", flush=True)
    return network


def main(store: str, epochs: str, batch_size: str, output: str) -> None:
    import numpy as np

    x, y = read_years(store)
    torch.manual_seed(0)
    order = np.random.default_rng(0).permutation(len(x))
    kept, rest = order[: len(x) // 10], order[len(x) // 10 :]
    network = train(x, y, rest, kept, int(epochs), int(batch_size))
    torch.save(network.state_dict(), output)


def cross_validate(
    store: str, seeds: str, folds: str, epochs: str, batch_size: str, folder: str
) -> None:
    import json
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from kerasmlp.data.examples import Examples
    from kerasmlp.data.splits import grouped_split
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.data.targets import age_target
    from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
    from kerasmlp.models.presets import PRESETS

    x, y = read_years(store)
    opened = EmbeddingStore.open(store)
    plan = CrossValidationPlan(
        target=age_target("age_years", "years", by_years=False),
        recipe=PRESETS["paper-age"],
        seeds=tuple(range(int(seeds))),
        num_folds=int(folds),
    )
    groups = Examples.of(opened, plan.target).groups(None)
    with open(Path(folder) / "runs.jsonl", "w") as results:
        for run in plan_runs(opened, plan):
            torch.manual_seed(run.seed)
            parts = grouped_split(groups[run.training], plan.validation_share, run.seed)
            rest, kept = (run.training[part] for part in parts)
            network = train(x, y, rest, kept, int(epochs), int(batch_size))
            tested = {
                name: measure(network, x[rows], y[rows])
                for name, rows in (("training", rest), ("validation", kept), ("test", run.test))
            }
            torch.save(network.state_dict(), Path(folder) / f"{run.name}.pt")
            results.write(json.dumps({"run": run.name, **tested}) + "\n")


def rounds(batch_size: str, rows: str, epochs: str) -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(int(rows), 512))
    network = make_network()
    optimizer = make_optimizer(network)
    loader = make_loader(x, torch.randint(101, (int(rows),)), int(batch_size))
    for _ in sys.stdin:
        train_epoch(network, optimizer, loader)
        started = time.perf_counter()
        for _ in range(int(epochs)):
            train_epoch(network, optimizer, loader)
        print(int(epochs) * int(rows) / (time.perf_counter() - started), flush=True)


@torch.no_grad()
def samples(num_classes: str, num_blocks: str, faces: str, num_samples: str) -> None:
    torch.manual_seed(0)
    network = make_network(int(num_classes), int(num_blocks)).eval()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    x = nn.functional.normalize(torch.randn(int(faces), 512))
    for _ in sys.stdin:
        started = time.perf_counter()
        for row in x:
            probabilities = network(row.repeat(int(num_samples), 1)).softmax(1)
            votes = probabilities.argmax(1)
            shares = votes.bincount(minlength=int(num_classes)) / int(num_samples)
            float(torch.special.entr(shares).sum()), float(votes.float().mean())
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--samples":
        samples(*sys.argv[2:])
    elif sys.argv[1] == "--cross-validate":
        cross_validate(*sys.argv[2:])
    elif sys.argv[1] == "--rounds":
        rounds(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
