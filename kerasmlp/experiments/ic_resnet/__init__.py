"""The IC paper's experiments on CIFAR: ResNets with and without IC layers."""
