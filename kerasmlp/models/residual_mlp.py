import re
import zlib
from collections.abc import Mapping

import keras

from kerasmlp.layers.downsample_block import DownsampleBlock
from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.layers.ic_layer import ICLayer
from kerasmlp.layers.initializers import check_initializer, check_seeds, dense, spread_seed
from kerasmlp.layers.member_ends import MemberMean, ToMembers
from kerasmlp.layers.residual_block import ResidualBlock
from kerasmlp.layers.standardize import Standardize
from kerasmlp.models.presets import MAX_BLOCKS, MAX_MEMBERS, MAX_RESIDUALS_PER_BLOCK
from kerasmlp.utils.checks import (
    check_bool,
    check_int,
    check_optional_int,
    check_positive,
    check_rate,
    reject,
)


def ResidualMLP(
    *,
    num_classes: int | None = None,
    num_targets: int | None = None,
    heads: int | str | Mapping[str, int | str] | None = None,
    width: int = 512,
    hidden_width: int | None = None,
    num_blocks: int = 1,
    residuals_per_block: int = 1,
    dropout_rate: float = 0.05,
    use_ic: bool = True,
    use_residual: bool = True,
    use_input_ic: bool = False,
    use_output_ic: bool = False,
    input_scale: float = 1.0,
    standardize: bool = False,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    kernel_initializer: str = "fan_in_uniform",
    seed: int | None = None,
    members: int = 1,
    dtype: str | None = None,
    name: str = "residual_mlp",
) -> keras.Model:
    """Builds the residual IC-MLP: a functional model from embeddings to probabilities.

    Stage i of `num_blocks` works at width `hidden_width / 2^i` (rounded down): it
    holds `residuals_per_block` residual blocks, then one downsample block that
    halves the width. One dense layer follows. Depth by example:

    | num_blocks | residuals_per_block | layers (R residual, D downsample) |
    | --- | --- | --- |
    | 0 | any | Dense |
    | 1 | 0 | D256, Dense |
    | 2 | 1 | R512, D256, R256, D128, Dense (the paper's age net) |

    In training, prediction and sampling it does what `ICLayer` says. The
    outputs are float32 under every dtype policy.

    Args:
        num_classes: Size of the softmax head `probabilities`.
        num_targets: Size of a linear head `outputs` for regression.
        heads: In place of these two: a number of classes, `"gaussian"` for a
            `GaussianHead`, or several of them by name: one trunk, and a dense
            layer and an output per name.
        width: Length of an embedding.
        hidden_width: Of the first stage, by default `width`; a dense layer in front leads
            to another one.
        num_blocks: Number of stages, 0 or more.
        residuals_per_block: Residual blocks in each stage, 0 or more.
        dropout_rate: Of all IC layers, in [0, 1).
        use_ic: False leaves all IC layers out (ablation).
        use_residual: False leaves all skip connections out (ablation).
        use_input_ic: Put an IC layer before the very first dense layer too.
            The paper leaves it out: the embedding has meaning as it is.
        use_output_ic: Put an IC layer before the head too. The original
            leaves it out.
        input_scale: Factor on the embeddings. `width ** 0.5` brings the
            coordinates of an embedding of norm 1 to unit size.
        standardize: Begin with a layer `Standardize`, whose `adapt` is to be shown
            the rows that are trained on.
        momentum: Of the moving statistics.
        epsilon: Added to the variance.
        kernel_initializer: `"fan_in_uniform"` (the original's, biases too) or
            the name of one of Keras' initialisers (biases zero).
        seed: Integer or None, of initial weights and dropout masks.
        members: Networks in one: member m is that of `seed + m`, and the output is the mean of
            their answers, of `"gaussian"` that of the mixture. `members_apart` has them learn
            and answer each by itself.
        dtype: Policy of the blocks, such as `"mixed_float16"`; Keras' global
            one by default.
        name: Of the model.

    Returns:
        A `keras.Model` with input `embedding` of shape `(batch, width)` and
        output `(batch, num_classes)`, float32 probabilities, or
        `(batch, num_targets)`, or `(batch, 2)`, mean and standard deviation;
        of several heads a dict of outputs.

    Raises:
        ValueError: if an argument is out of range.

    Example:

    >>> model = ResidualMLP(num_classes=2, num_blocks=4, seed=0)
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)  # the paper's gender net
    877602
    >>> model.predict(np.ones((3, 512), "float32"), verbose=0).shape
    (3, 2)
    >>> model = ResidualMLP(heads={"gender": 2, "height": "gaussian"}, width=16, seed=0)
    >>> {name: output.shape for name, output in model.output.items()}
    {'gender': (None, 2), 'height': (None, 2)}

    Reference: "Generalizing MLPs With Dropouts, Batch Normalization, and Skip
    Connections", section 3.2.
    """
    width = check_int("width", width, minimum=1)
    num_blocks = check_int("num_blocks", num_blocks, minimum=0, maximum=MAX_BLOCKS)
    most = {"minimum": 0, "maximum": MAX_RESIDUALS_PER_BLOCK}
    residuals_per_block = check_int("residuals_per_block", residuals_per_block, **most)
    heads = _checked_heads(num_classes, num_targets, heads)
    hidden_width = _checked_halves(hidden_width, width, num_blocks)
    number = num_blocks * (residuals_per_block + 1) + 3 + len(heads)
    members = check_int("members", members, minimum=1, maximum=MAX_MEMBERS)
    seeds = iter(spread_seed(check_seeds(seed, members), number))
    ic = {"dropout_rate": check_rate("dropout_rate", dropout_rate), "momentum": momentum}
    ic |= {"epsilon": epsilon, "members": members, "dtype": dtype}
    block = ic | {"kernel_initializer": check_initializer(kernel_initializer)}
    uses_ic = check_bool("use_ic", use_ic)
    first_ic = check_bool("use_input_ic", use_input_ic) and uses_ic  # before the first dense layer
    inputs = keras.Input((width,), name="embedding")
    x = _scaled(inputs, standardize, input_scale, members, dtype)
    if hidden_width != width:
        if first_ic:
            x = ICLayer(seed=next(seeds), name="input_ic", **ic)(x)
        how = {"members": members, "dtype": dtype, "name": "projection"}
        x = dense(hidden_width, kernel_initializer, width, next(seeds), **how)(x)
        first_ic = uses_ic
    for i in range(num_blocks):
        uses = {"use_ic": uses_ic, "use_first_ic": first_ic, "use_residual": use_residual}
        for j in range(residuals_per_block):
            x = ResidualBlock(**uses, seed=next(seeds), name=f"residual_{i}_{j}", **block)(x)
            uses["use_first_ic"] = first_ic = uses_ic
        halved = {"width": hidden_width >> (i + 1), "use_ic": first_ic}
        x = DownsampleBlock(**halved, seed=next(seeds), name=f"downsample_{i}", **block)(x)
        first_ic = uses_ic
    head_is_first = num_blocks == 0 and hidden_width == width
    if uses_ic and (check_bool("use_output_ic", use_output_ic) or (head_is_first and first_ic)):
        x = ICLayer(seed=next(seeds), name="output_ic", **ic)(x)
    how = {"kernel": kernel_initializer, "members": members}
    outputs = {k: _answer(x, v, k, next(seeds), **how) for k, v in heads.items()}
    return keras.Model(inputs, outputs.get(None, outputs), name=name)


def _checked_halves(hidden_width: int | None, width: int, num_blocks: int) -> int:
    width = check_optional_int("hidden_width", hidden_width, minimum=1) or width
    if width < 2**num_blocks:
        reject("num_blocks", f"must leave a width of at least 1, starting at {width}", num_blocks)
    return width


def _scaled(x, standardize: bool, input_scale: float, members: int, dtype: str | None):
    """The inputs at unit size, for each member."""
    input_scale = check_positive("input_scale", input_scale)
    if check_bool("standardize", standardize):
        x = Standardize(dtype=dtype, name="standardize")(x)
    if input_scale != 1:
        x = keras.layers.Rescaling(input_scale, dtype=dtype, name="input_scale")(x)
    return ToMembers(members, dtype=dtype, name="members")(x) if members > 1 else x


def head_layer(kind: str, name: str | None) -> str:
    """What a layer of a head is called: by its kind, and by the head where there are several.

    Example:

    >>> head_layer("logits", None), head_layer("logits", "gender"), head_layer("logits", "a/b")
    ('logits', 'logits_gender', 'logits_a_b_7f4401c')
    """
    if name is None:
        return kind
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)  # what TensorFlow takes in a name
    return f"{kind}_{plain}" if plain == name else f"{kind}_{plain}_{zlib.crc32(name.encode()):x}"


def _answer(x, head: int | str | tuple, name: str | None, seed, *, kernel: str, members: int):
    """The output of a head on the last layer of the trunk."""
    classes, linear = isinstance(head, int), isinstance(head, tuple)
    size = head if classes else head[0] if linear else 2
    kind = "logits" if classes else "outputs"
    named = {"name": head_layer(kind, name), "dtype": "float32"}
    x = dense(size, kernel, x.shape[-1] // members, seed, members=members, **named)(x)
    if not (classes or linear):
        named = {"dtype": "float32", "name": head_layer("gaussian", name)}
        return GaussianHead(members=members, **named)(x)
    named = {"dtype": "float32", "name": head_layer("probabilities" if classes else "mean", name)}
    activation = "softmax" if classes else None
    if members > 1:
        return MemberMean(members, activation=activation, **named)(x)
    return x if linear else keras.layers.Activation(activation, **named)(x)


def _checked_heads(num_classes, num_targets, heads) -> dict:
    """What is to be answered by the names of heads, in their order; None is the only one's."""
    if (num_classes, num_targets, heads).count(None) != 2:
        requirement = "must be given, or else `num_targets` or `heads`, and only one of them"
        reject("num_classes", requirement, num_classes)
    if num_targets is not None:
        return {None: (check_int("num_targets", num_targets, minimum=1),)}
    if num_classes is not None:
        return {None: check_int("num_classes", num_classes, minimum=2)}
    several = isinstance(heads, Mapping)
    if several and (len(heads) < 2 or not all(isinstance(name, str) for name in heads)):
        reject("heads", "must be two or more, by their names", list(heads))
    return {
        name: head if isinstance(head, str) and head == "gaussian"
        else check_int("heads", head, minimum=2)
        for name, head in (sorted(heads.items()) if several else [(None, heads)])
    }  # fmt: skip
