"""How mean and covariance pass through a layer: one rule per kind of layer.

A covariance is None while nothing is random, `(batch, width)` while units are
independent, else `(batch, width, width)`.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

from kerasmlp.layers.downsample_block import DownsampleBlock
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.residual_block import ResidualBlock
from kerasmlp.layers.standardize import Standardize
from kerasmlp.utils.checks import reject

_NORMAL_GRID = np.linspace(-8.0, 8.0, 401)  # the trapezoid rule: fine enough for steep sigmoids


def softmax_moments(mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the softmax of Gaussian logits.

    The log-odds of each class are taken for Gaussian, which is exact for two
    classes, and integrated by quadrature.

    Args:
        mean: Of the logits, `(batch, num_classes)`.
        covariance: Of the logits, `(batch, num_classes, num_classes)`.

    Returns:
        Means, summing to 1, and variances, `(batch, num_classes)`.

    Example:

    >>> mean, variance = softmax_moments(np.zeros((1, 2)), np.zeros((1, 2, 2)))
    >>> mean.round(6), variance.round(6)
    (array([[0.5, 0.5]]), array([[0., 0.]]))
    """
    size = mean.shape[1]
    others = np.where(np.eye(size, dtype=bool), -np.inf, mean[:, None, :])
    top = others.max(axis=2, keepdims=True)
    shares = np.exp(others - top)
    total = shares.sum(axis=2, keepdims=True)
    shares /= total  # of the other classes, `(batch, class, other)`
    spread = np.einsum("bki,bij->bkj", shares, covariance)
    quadratic = np.einsum("bkj,bkj->bk", spread, shares)
    diagonal = np.einsum("bii->bi", covariance)
    # log-odds: the logit minus the log-sum-exp of the others, that one to second order
    odds = mean - top[..., 0] - np.log(total[..., 0])
    odds -= (np.einsum("bki,bi->bk", shares, diagonal) - quadratic) / 2
    variance = diagonal - 2 * np.einsum("bkk->bk", spread) + quadratic
    weights = np.exp(-(_NORMAL_GRID**2) / 2)
    points = odds[..., None] + np.sqrt(np.maximum(variance, 0))[..., None] * _NORMAL_GRID
    probabilities = 1 / (1 + np.exp(-np.clip(points, -500, 500)))
    weights = weights / weights.sum()
    first, second = probabilities @ weights, probabilities**2 @ weights
    scale = first.sum(axis=1, keepdims=True)
    return first / scale, np.maximum(second - first**2, 0) / scale**2


def rule_of(step) -> Callable:
    """The rule of a layer or activation, or a refusal."""
    for kind, rule in _RULES.items():
        if step is kind or (isinstance(kind, type) and type(step) is kind):
            for what, found in _peculiarities(step).items():
                if found:
                    reject("model", f"must have no {what} to have its moments computed", step.name)
            return rule
    known = sorted(k.__name__ for k in _RULES)
    name = getattr(step, "name", getattr(step, "__name__", step))
    reject("model", f"must be made of {', '.join(known)} to have its moments computed", name)


def _peculiarities(step) -> dict[str, bool]:
    """What a layer of a known kind can do that its rule does not say."""
    parts = [step, *vars(step).values()] if isinstance(step, layers.Layer) else []
    return {
        "members": getattr(step, "members", 1) > 1,
        "quantised layer": any(getattr(p, "quantization_mode", None) for p in parts),
        "ReLU but the plain one": isinstance(step, layers.ReLU)
        and bool(step.max_value is not None or step.negative_slope or step.threshold),
        "dropout with a noise shape": getattr(step, "noise_shape", None) is not None,
        "dropout of everything": getattr(step, "rate", 0) == 1,
    }


def _rescaling(layer, mean, covariance):
    scale = ops.broadcast_to(ops.convert_to_tensor(layer.scale, "float32"), mean.shape[-1:])
    return mean * scale + layer.offset, _scaled(covariance, scale)


def _standardize(layer, mean, covariance):
    return layer(mean), _scaled(covariance, layer.scale)  # it stands before all that is random


def full(covariance, mean):
    """The covariance as `(batch, width, width)`."""
    if covariance is None:
        covariance = ops.zeros_like(mean)
    if len(covariance.shape) == 2:
        covariance = covariance[:, None] * ops.eye(covariance.shape[-1])
    return covariance


def _variance(covariance):
    if covariance is None or len(covariance.shape) == 2:
        return covariance
    return ops.diagonal(covariance, axis1=1, axis2=2)


def _with_variance(covariance, variance):
    """The covariance with another diagonal."""
    eye = ops.eye(covariance.shape[-1])
    return covariance * (1 - eye) + variance[:, None] * eye


def _scaled(covariance, scale):
    """Covariance of units times `scale`, `(width,)` or `(batch, width)`."""
    if covariance is None:
        return None
    if len(covariance.shape) == 2:
        return covariance * ops.square(scale)
    return covariance * scale[..., None] * scale[..., None, :]


def _dense(layer, mean, covariance):
    kernel = ops.cast(layer.kernel, "float32")
    mean = mean @ kernel
    if layer.use_bias:
        mean = mean + ops.cast(layer.bias, "float32")
    return mean, _through(covariance, kernel)


def _through(covariance, kernel):
    if covariance is None:
        return None
    if len(covariance.shape) == 2:
        return (ops.transpose(kernel) * covariance[:, None]) @ kernel
    return ops.transpose(covariance @ kernel, (0, 2, 1)) @ kernel


def _dropout(rate, mean, covariance):
    if not rate:
        return mean, covariance
    if covariance is None:
        return mean, rate / (1 - rate) * ops.square(mean)
    variance = _variance(covariance)
    variance = (variance + rate * ops.square(mean)) / (1 - rate)
    if len(covariance.shape) == 2:
        return mean, variance
    return mean, _with_variance(covariance, variance)


def _batch_norm(layer, mean, covariance):
    scale = _norm_scale(layer)
    shifted = (mean - layer.moving_mean) * scale
    if layer.center:
        shifted = shifted + layer.beta
    return shifted, _scaled(covariance, scale)


def _norm_scale(layer):
    scale = ops.rsqrt(layer.moving_variance + layer.epsilon)
    return scale * layer.gamma if layer.scale else scale


def _ic(layer, mean, covariance):
    return _dropout(layer.dropout_rate, *_batch_norm(layer.norm, mean, covariance))


def _relu(_, mean, covariance):
    """Of a Gaussian: exact means and variances; covariances to second order."""
    if covariance is None:
        return ops.relu(mean), None
    variance = ops.maximum(_variance(covariance), 0.0)
    deviation = ops.sqrt(variance + 1e-20)
    positive = _positive(mean, variance)
    density = ops.exp(-0.5 * ops.square(mean / deviation)) / (2 * np.pi) ** 0.5
    first = mean * positive + deviation * density
    second = (ops.square(mean) + variance) * positive + mean * deviation * density
    variance = ops.maximum(second - ops.square(first), 0.0)
    if len(covariance.shape) == 2:
        return first, variance
    bend = density / deviation
    covariance = _scaled(covariance, positive) + _scaled(ops.square(covariance), bend) / 2
    return first, _with_variance(covariance, variance)


def _positive(mean, variance):
    """Probability that a Gaussian is above 0."""
    return 0.5 * (1 + ops.erf(mean / ops.sqrt(2 * variance + 1e-20)))


def _downsample(block, mean, covariance):
    if block.ic is not None:
        mean, covariance = _ic(block.ic, mean, covariance)
    return _relu(None, *_dense(block.dense, mean, covariance))


def _residual(block, mean, covariance):
    inner = (mean, covariance)
    if block.ic_0 is not None:
        inner = _ic(block.ic_0, *inner)
    inner = _dense(block.dense_0, *inner)
    slope = None if inner[1] is None else _positive(inner[0], _variance(inner[1]))
    inner = _relu(None, *inner)
    if block.ic_1 is not None:
        inner = _ic(block.ic_1, *inner)
    branch_mean, branch = _dense(block.dense_1, *inner)
    if block.use_residual:
        branch_mean = branch_mean + mean
        if covariance is not None:
            # Stein: behind a ReLU, covariances with a Gaussian shrink by the chance to be positive.
            covariance = full(covariance, mean)
            cross = (covariance * _slope(block.ic_0)) @ ops.cast(block.dense_0.kernel, "float32")
            cross = cross * (slope * _slope(block.ic_1))[:, None]
            cross = cross @ ops.cast(block.dense_1.kernel, "float32")
            branch = full(branch, mean) + covariance + cross + ops.transpose(cross, (0, 2, 1))
    return _relu(None, branch_mean, branch)


def _slope(ic):
    """Of the affine map of batch norm; dropout keeps it on average."""
    return 1.0 if ic is None else _norm_scale(ic.norm)


_RULES: dict[type | Callable, Callable] = {
    ICLayer: _ic,
    ResidualBlock: _residual,
    DownsampleBlock: _downsample,
    Standardize: _standardize,
    layers.Dense: _dense,
    layers.Dropout: lambda layer, m, c: _dropout(layer.rate, m, c),
    layers.BatchNormalization: _batch_norm,
    layers.ReLU: _relu,
    layers.Rescaling: _rescaling,
    keras.activations.relu: _relu,
}
