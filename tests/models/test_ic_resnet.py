"""IC ResNets: sizes, the order of their layers, an independent forward pass, sampling."""

import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_sets import ROOT
from forked import fresh_python

from kerasmlp import ICLayer, ICResNet, ICResNet50, InputError, predict_moments, predict_samples
from kerasmlp.layers.batch_norm import BatchNorm
from kerasmlp.models.arrangements import ARRANGEMENTS
from kerasmlp.uncertainty import samples as uncertainty
from kerasmlp.uncertainty.sampler import Sampler

COUNTS = {  # (depth, bottleneck): trainable parameters with 10 classes
    (20, False): 272_282,
    (110, False): 1_730_522,
    (164, False): 2_605_466,
    (20, True): 219_482,
    (29, True): 312_218,
    (110, True): 1_146_842,
    (164, True): 1_703_258,
}
UNITS = {  # a unit from its input to its sum, then from there to the next unit
    ("relu-ic-conv", False): ("relu ic conv " * 2, ""),
    ("ic-conv-relu", False): ("ic conv relu " * 2, ""),
    ("conv-relu-ic", False): ("conv relu ic " * 2, ""),
    ("baseline", False): ("conv norm relu conv norm", "relu"),
    ("relu-ic-conv", True): ("relu ic conv " * 3, ""),
    ("ic-conv-relu", True): ("ic conv relu " * 3, ""),
    ("conv-relu-ic", True): ("conv relu ic " * 3, ""),
    ("baseline", True): ("norm relu conv " * 3, ""),
}
ENDS = {  # after the first convolution, before the mean over pixels
    ("relu-ic-conv", False): ("", "relu ic"),
    ("ic-conv-relu", False): ("relu", "ic"),
    ("conv-relu-ic", False): ("relu ic", ""),
    ("baseline", False): ("norm relu", ""),
    ("baseline", True): ("", "norm relu"),
}
ENDS |= {(a, True): ENDS[a, False] for a in ARRANGEMENTS if a != "baseline"}
SMALLEST = {False: 8, True: 11}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 32, 32, 3)).astype("float32")


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def by_hand(depth, bottleneck, num_classes):
    """The count from the paper's description alone."""
    wide = 4 if bottleneck else 1
    units = (depth - 2) // (9 if bottleneck else 6)
    count = 27 * 16 + 2 * 16
    before = 16
    for filters in (16, 32, 64):
        for _ in range(units):
            after = wide * filters
            shapes = [(9, before, filters), (9, filters, filters)]
            if bottleneck:
                shapes = [(1, before, filters), (9, filters, filters), (1, filters, after)]
            count += sum(size * i * o + 2 * o for size, i, o in shapes)
            count += before * after if before != after else 0
            before = after
    return count + (before + 1) * num_classes


@pytest.mark.parametrize(("depth", "bottleneck"), COUNTS)
def test_parameter_counts(depth, bottleneck):
    assert by_hand(depth, bottleneck, 10) == COUNTS[depth, bottleneck]
    # All four where it is cheap; the deepest once, by hand they are the same.
    names = ARRANGEMENTS if depth < 30 else ["baseline", "conv-relu-ic"][bottleneck:][:1]
    for arrangement in names:
        network = {"depth": depth, "bottleneck": bottleneck, "arrangement": arrangement}
        model = ICResNet(**network, num_classes=10)
        assert trainable(model) == COUNTS[depth, bottleneck], arrangement
        kernels = [w for w in model.trainable_weights if "skip" not in w.path and len(w.shape) > 1]
        assert len(kernels) == depth


def test_parameter_counts_with_100_classes():
    for arrangement in ARRANGEMENTS:
        network = {"depth": 11, "bottleneck": True, "arrangement": arrangement}
        assert trainable(ICResNet(**network, num_classes=100)) == by_hand(11, True, 100)


def producers(layer):
    """The layers whose outputs a layer takes."""
    return [t._keras_history.operation for t in keras.tree.flatten(layer.input)]


def path_back(layer, *, until):
    """Kinds of the layers from a layer back to one of the kinds in `until`, which is returned."""
    kinds = []
    while layer.name.split("_")[0] not in until:
        kinds.append(layer.name.split("_")[0])
        (layer,) = producers(layer)
    return " ".join(reversed(kinds)), layer


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_layers_are_in_the_order_of_the_paper(arrangement, bottleneck):
    depth = {False: 14, True: 20}[bottleneck]  # two units in each group
    model = ICResNet(depth=depth, arrangement=arrangement, bottleneck=bottleneck, dropout_rate=0.2)
    unit, between = UNITS[arrangement, bottleneck]
    stem, end = ENDS[arrangement, bottleneck]
    found, last = path_back(producers(model.get_layer("pool_end"))[0], until={"sum"})
    assert found == " ".join([between, end]).strip()
    previous = model.get_layer("conv_stem")
    inside = []
    for group in range(3):
        for number in range(2):
            total = model.get_layer(f"sum_{group}_{number}")
            inner, skip = producers(total)
            first_conv = model.get_layer(f"conv_{group}_{number}_0")
            if skip.name.startswith("skip"):
                assert skip.kernel.shape[:2] == (1, 1)
                # It takes what the first convolution takes.
                assert producers(skip) == producers(first_conv)
                changes = skip.strides == (2, 2) or skip.kernel.shape[2] != skip.kernel.shape[3]
                assert changes and skip.strides == first_conv.strides
            else:
                found, before = path_back(skip, until={"sum", "conv"})
                assert before is previous
                assert found == (between if number or group else stem)
            kinds, start = path_back(inner, until={"sum", "pool", "image"})
            if group + number:
                assert start is previous
                kinds = kinds.removeprefix(between).strip()
            else:
                kinds = kinds.removeprefix(f"conv {stem}".strip()).strip()
            assert kinds == unit.strip()
            inside.append(skip.name)
            previous = total
    assert previous is last
    assert sum(name.startswith("skip") for name in inside) == 2 + bottleneck
    kinds = {type(layer).__name__ for layer in model.layers}
    assert ("ICLayer" in kinds) == (arrangement != "baseline")
    assert ("BatchNorm" in kinds) == (arrangement == "baseline")
    rates = {layer.dropout_rate for layer in model.layers if hasattr(layer, "dropout_rate")}
    assert rates == (set() if arrangement == "baseline" else {0.2})
    # Group by group half the sides and twice the channels; units of three, 1×1 outside.
    widths = [tuple(model.get_layer(f"sum_{g}_1").output.shape[1:]) for g in range(3)]
    wide = 4 if bottleneck else 1
    assert widths == [(32, 32, 16 * wide), (16, 16, 32 * wide), (8, 8, 64 * wide)]
    sizes = [3, 3] if not bottleneck else [1, 3, 1]
    convs = [model.get_layer(f"conv_1_1_{k}").kernel.shape[0] for k in range(len(sizes))]
    assert convs == sizes


def conv2d(x, kernel, stride):
    """Cross-correlation with TensorFlow's `same` padding, one output pixel after another."""
    size, pads = kernel.shape[0], []
    for n in x.shape[1:3]:
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.einsum("bijcuv,uvco->bijo", windows[:, ::stride, ::stride], kernel, optimize=True)


def numpy_forward(weights, x, arrangement, bottleneck):
    """The network from its description: weights by layer name, in float64."""

    def apply(kind, x, place, stride=1):
        if kind == "relu":
            return np.maximum(x, 0)
        if kind == "conv":
            return conv2d(x, weights[f"conv_{place}"][0], stride)
        gamma, beta, mean, variance = weights[f"{kind}_{place}"]
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    stem, end = (part.split() for part in ENDS[arrangement, bottleneck])
    unit, between = UNITS[arrangement, bottleneck]
    x = apply("conv", x.astype("float64"), "stem")
    for kind in stem:
        x = apply(kind, x, "stem")
    for group in range(3):
        skip, k, stride = x, 0, 2 if group else 1
        for position, kind in enumerate(unit.split()):
            # The skipping convolution takes what the first one takes.
            if kind == "conv" and "conv" not in unit.split()[:position]:
                if f"skip_{group}_0" in weights:
                    skip = conv2d(x, weights[f"skip_{group}_0"][0], stride)
                x = apply(kind, x, f"{group}_0_{k}", stride)
            else:
                x = apply(kind, x, f"{group}_0_{k}")
            last = unit.split()[-1] if arrangement != "baseline" or bottleneck else "norm"
            k += kind == last
        x = x + skip
        x = np.maximum(x, 0) if between else x
    for kind in end:
        x = apply(kind, x, "end")
    kernel, bias = weights["logits"]
    logits = x.mean(axis=(1, 2)) @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("arrangement", "bottleneck"), UNITS)
def test_equals_an_independent_forward_pass(arrangement, bottleneck):
    depth = SMALLEST[bottleneck]
    network = {"depth": depth, "arrangement": arrangement, "bottleneck": bottleneck}
    model = ICResNet(**network, num_classes=5, seed=0)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) == 1:
            low, high = (0.5, 2) if "variance" in weight.path else (-1, 1)
            weight.assign(rng.uniform(low, high, weight.shape))
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    expected = numpy_forward(weights, X, arrangement, bottleneck)
    assert expected.max() < 0.999  # says something
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=2e-3, atol=2e-5)


def test_kernels_start_alike_and_by_hes_rule():
    def kernels(arrangement, seed):
        model = ICResNet(depth=8, arrangement=arrangement, seed=seed)
        return {w.path: np.array(w) for w in model.weights if w.path.endswith("kernel")}

    baseline = kernels("baseline", 3)
    for arrangement in ARRANGEMENTS:
        found = kernels(arrangement, 3)
        assert found.keys() == baseline.keys()
        for name, value in found.items():
            np.testing.assert_array_equal(value, baseline[name])
    for name, value in kernels("baseline", 4).items():
        assert (value != baseline[name]).any()
    kernel = baseline["conv_2_0_1/kernel"]
    assert abs(kernel.std() / np.sqrt(2 / (9 * 64)) - 1) < 0.02


@pytest.fixture(scope="module")
def sampled():
    model = ICResNet(depth=8, num_classes=4, dropout_rate=0.3, seed=2)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "moving_mean" in weight.path:
            weight.assign(rng.normal(size=weight.shape))
        elif weight.path == "logits/kernel":
            weight.assign(0.2 * weight)
    return model


def sampling(model):
    """The model with every IC layer called with `sampling=True`."""

    def call(layer, *args, **kwargs):
        return layer(*args, **kwargs | {"sampling": True} if isinstance(layer, ICLayer) else kwargs)

    return keras.models.clone_model(model, clone_function=lambda x: x, call_function=call)


def test_samples_are_those_of_the_layers(sampled):
    """Many passes at once, masks from hashes, against one pass after the other by generators."""
    before = [np.array(v) for v in sampled.variables]
    deterministic = sampled.predict(X, verbose=0)
    samples = predict_samples(sampled, X, num_samples=100, seed=5)
    assert samples.shape == (100, 3, 4)
    np.testing.assert_allclose(samples.sum(axis=-1), 1, atol=1e-5)
    keras.utils.set_random_seed(0)
    single = keras.ops.convert_to_numpy(sampling(sampled)(np.repeat(X, 100, axis=0)))
    single = single.reshape(3, 100, 4).transpose(1, 0, 2)
    error = np.sqrt((samples.var(axis=0) + single.var(axis=0)) / 100)
    assert (np.abs(samples.mean(axis=0) - single.mean(axis=0)) < 5 * error + 1e-6).all()
    np.testing.assert_allclose(samples.std(axis=0), single.std(axis=0), rtol=0.5, atol=1e-4)
    assert np.abs(samples.mean(axis=0) - deterministic).max() > 1e-4
    for old, new in zip(before, sampled.variables, strict=True):
        if "seed_generator" not in new.path:
            np.testing.assert_array_equal(old, np.array(new))


def test_samples_do_not_depend_on_how_rows_are_cut(sampled, monkeypatch):
    settings = {"num_samples": 8, "seed": 1}
    sampler = Sampler(sampled)
    whole = predict_samples(sampler, X, **settings)
    for start in range(3):
        part = predict_samples(sampler, X[start : start + 1], first_row=start, **settings)
        np.testing.assert_allclose(part, whole[:, start : start + 1], atol=2e-5)
    monkeypatch.setattr(uncertainty, "_UNITS_PER_PASS", 5 * 16 * 32 * 32)
    chunks = []
    run = sampler.run

    def counted(output, x, streams, *args, **kwargs):
        chunks.append(streams.shape)
        return run(output, x, streams, *args, **kwargs)

    monkeypatch.setattr(sampler, "run", counted)
    few = predict_samples(sampler, X, **settings)
    np.testing.assert_allclose(few, whole, atol=2e-5)
    assert chunks == [(8, 1, 4)]  # at most 5 rows × samples at once fit the memory


def test_shared_masks_are_one_function(sampled):
    x = np.repeat(X[:1], 20, axis=0)  # more rows than the sparse way for vectors needs
    samples = predict_samples(sampled, x, num_samples=4, seed=1, masks="shared")
    np.testing.assert_allclose(samples, np.repeat(samples[:, :1], 20, axis=1), atol=1e-5)
    assert samples[:, 0].std(axis=0).max() > 1e-4
    own = predict_samples(sampled, x, num_samples=4, seed=1)
    assert own.std(axis=1).max() > 1e-4


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64", "float16", "bfloat16"])
def test_batch_norm_of_maps_is_keras_own(policy):
    """Outputs, gradients and moving statistics, by one kernel or by Keras' steps."""
    found, x = [], RNG.normal(3, 2, (4, 6, 5, 3)).astype("float32")
    for layer_class in (BatchNorm, keras.layers.BatchNormalization):
        layer = layer_class(momentum=0.8, epsilon=1e-3, dtype=policy)
        layer.build(x.shape)
        layer.gamma.assign([1.0, 2.0, -1.0])
        layer.beta.assign([0.0, 1.0, 2.0])
        with tf.GradientTape() as tape:
            inputs = tf.Variable(tf.cast(x, layer.compute_dtype))
            outputs = tf.cast(layer(inputs, training=True), "float32")
            loss = tf.reduce_mean(outputs**3)
        gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        moving = [np.array(layer.moving_mean), np.array(layer.moving_variance)]
        found.append([outputs, *gradients, *moving, layer(x)])
        layer.trainable = False  # Keras: the moving statistics then
        found[-1].append(layer(x, training=True))
    exact = policy in ("float32", "float64")
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if exact else {"rtol": 0.05, "atol": 0.1}
    for ours, theirs in zip(*found, strict=True):
        ours, theirs = (np.array(tf.cast(v, "float32")) for v in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, **tolerance)


def test_what_cannot_be_sampled_says_so(sampled):
    with pytest.raises(InputError, match="`model` must have dropout with a rate above 0"):
        predict_samples(ICResNet(depth=8, arrangement="baseline"), X)
    with pytest.raises(InputError, match=r"`x` must have shape \(batch, 32, 32, 3\)"):
        predict_samples(sampled, X[..., :1])
    with pytest.raises(InputError):
        predict_moments(sampled, X)


def test_a_fresh_process_loads_it(sampled, tmp_path):
    sampled.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy as np\n"
        "from kerasmlp import load_model\n"
        "folder = sys.argv[1]\n"
        "x = np.load(f'{folder}/x.npy')\n"
        "np.save(f'{folder}/y.npy', load_model(f'{folder}/model.keras').predict(x, verbose=0))\n"
    )
    command = [fresh_python(), "-c", code, str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), sampled.predict(X, verbose=0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_precision(policy):
    model = ICResNet(depth=8, dtype=policy)
    assert model.get_layer("conv_1_0_0").compute_dtype == policy.removeprefix("mixed_")
    assert {w.dtype for w in model.weights} == {"float32"}
    assert model.output.dtype == "float32" == model.get_layer("logits").compute_dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 29}, r"`depth` must be 6n \+ 2 without bottlenecks, such as 26 or 32. Rec"),
        ({"depth": 110, "bottleneck": True, "num_classes": 1}, "`num_classes` must be an integer"),
        ({"depth": 26, "bottleneck": True}, r"must be 9n \+ 2 with bottlenecks, such as 20 or 29"),
        ({"depth": 2}, "such as 8 or 14"),
        ({"depth": 20.0}, "`depth` must be an integer >= 1"),
        ({"bottleneck": 1}, "`bottleneck` must be True or False"),
        ({"arrangement": "conv-ic"}, "`arrangement` must be one of 'relu-ic-conv', 'ic-conv-relu'"),
        ({"dropout_rate": 1}, r"`dropout_rate` must be in \[0, 1\)"),
        ({"channels": 0}, "`channels` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        ICResNet(**arguments)


@pytest.mark.slow
def test_resnet50_learns_from_a_folder_of_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        pixels = RNG.integers(0, 255, (60, 50, 3))
        keras.utils.save_img(tmp_path / name / "0.png", pixels, scale=False)
    data = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(224, 224), batch_size=2, verbose=False
    )
    model = ICResNet50(num_classes=2, seed=0)
    assert trainable(model) == 25_549_352 - 998 * 2049
    sums = [layer.output.shape[1:] for layer in model.layers if layer.name.startswith("sum")]
    expected = [(56, 56, 256)] * 3 + [(28, 28, 512)] * 4 + [(14, 14, 1024)] * 6
    assert sums == expected + [(7, 7, 2048)] * 3
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    losses = model.fit(data, epochs=1, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
