"""Frozen layers stay as they are to the bit, cost no gradient, and thaw whatever happens."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmlp.callbacks.layer_out as layer_out_module
from kerasmlp import InputError, ResidualMLP
from kerasmlp.callbacks import LayerOut
from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.callbacks.frozen_step import weight_layers
from kerasmlp.models.presets import Recipe
from kerasmlp.training.optimizers import RecipeAdamW

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 8)).astype("float32")
Y = RNG.integers(0, 3, 24)
LOSS = "sparse_categorical_crossentropy"


class Recorded(keras.Model):
    """Keeps the graph of each traced training step."""

    graphs = ()

    def train_step(self, data):
        result = super().train_step(data)
        self.graphs = (*self.graphs, tf.compat.v1.get_default_graph())
        return result


def dense_net(depth=4, model_class=keras.Model):
    inputs = x = keras.Input((8,))
    for k in range(depth - 1):
        x = keras.layers.Dense(6, "tanh", name=f"d{k}")(x)
    return model_class(inputs, keras.layers.Dense(3, "softmax", name=f"d{depth - 1}")(x))


def conv_net():
    """Convolutions with batch norm, a branch, an inner model whose layer has an outer's name."""
    inputs = keras.Input((8,))
    x = keras.layers.Reshape((4, 2, 1))(inputs)
    x = keras.layers.Conv2D(3, 2, padding="same", name="c0")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="n0")(x))
    side = keras.layers.Conv2D(3, 1, name="c1")(x)
    x = keras.layers.Flatten()(keras.layers.Add()([x, side]))
    inner_inputs = keras.Input((24,))
    inner_outputs = keras.layers.Dense(5, "relu", name="out")(inner_inputs)
    x = keras.Model(inner_inputs, inner_outputs, name="inner")(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax", name="out")(x))


def residual_net(num_blocks=1):
    return ResidualMLP(num_classes=3, width=8, num_blocks=num_blocks, dropout_rate=0.1, seed=1)


def recipe_adamw():
    return RecipeAdamW(Recipe(epochs=6, weight_decay=0.1, learning_rate=0.01), steps_per_epoch=3)


class Snapshots(keras.callbacks.Callback):
    """All weights and optimiser variables at the beginning and the end of every epoch."""

    def on_train_begin(self, logs=None):
        self.begin, self.end = {}, {}

    def take(self):
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return {v.path: np.array(v) for v in variables}

    def on_epoch_begin(self, epoch, logs=None):
        self.begin[epoch] = self.take()

    def on_epoch_end(self, epoch, logs=None):
        self.end[epoch] = self.take()


def fit(model, *callbacks, epochs=6, **settings):
    settings = {"batch_size": 8, "verbose": 0, "shuffle": False, **settings}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings)


@pytest.mark.parametrize(
    ("build", "optimizer", "steps_per_execution"),
    [
        (dense_net, lambda: keras.optimizers.SGD(0.1, 0.9, weight_decay=0.1), 1),
        (dense_net, lambda: keras.optimizers.Adam(0.01, clipnorm=1.0), 3),
        (conv_net, lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), 2),
        (residual_net, recipe_adamw, 3),
    ],
)
def test_what_is_frozen_rests_to_the_bit_and_the_rest_moves(build, optimizer, steps_per_execution):
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(optimizer(), LOSS, jit_compile=False, steps_per_execution=steps_per_execution)
    layer_out, snapshots = LayerOut(warmup_epochs=1, seed=3), Snapshots()
    history = fit(model, layer_out, snapshots)
    layers = layer_out.layers
    assert sum(layer.size for layer in layers) == sum(
        int(np.prod(w.shape)) for w in model.trainable_weights
    )
    seen = set()
    for epoch, names in layer_out.frozen.items():
        before, after = snapshots.begin[epoch], snapshots.end[epoch]
        share = history.history["frozen_share"][epoch]
        frozen = [layer.name in names for layer in layers]
        assert layer_out.pattern(epoch) == tuple(frozen)
        sizes = np.array([layer.size for layer in layers])
        assert share == pytest.approx(sizes[frozen].sum() / sizes.sum())
        for layer, rests in zip(layers, frozen, strict=True):
            for variable in layer.variables:
                slot = variable.path.replace("/", "_") + "_"
                slots = [p for p in before if slot in p and p != variable.path]
                assert slots
                seen.add(rests)
                for path in (variable.path, *slots):
                    assert np.array_equal(before[path], after[path]) == rests, (epoch, path)
        if epoch:  # momentum and iterations carry on from epoch to epoch
            for path, value in snapshots.end[epoch - 1].items():
                np.testing.assert_array_equal(before[path], value)
    assert seen == {True, False}


def test_layers_within_blocks_and_models_are_found_in_order():
    names = [layer.name for layer in weight_layers(residual_net(2))]
    inside = [f"{s}/dense_{k}" for s in ("residual_0_0", "residual_1_0") for k in (0, 1)]
    assert [n for n in names if "residual" in n] == inside
    assert names[-1] == "logits" and len(names) == 7
    assert [(layer.name, layer.size) for layer in weight_layers(conv_net())] == [
        ("c0", 15 + 6), ("c1", 12), ("out", 125), ("out", 18),
    ]  # fmt: skip
    model = dense_net()
    model.layers[1].trainable = False  # the user's own freezing stays the user's
    assert [layer.name for layer in weight_layers(model)] == ["d1", "d2", "d3"]


def gradient_matmuls(graph):
    return [
        op.name for op in graph.get_operations()
        if op.type == "MatMul" and "gradient" in op.name
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("frozen", "layers"),
    [
        ((), ["d0", "d1", "d1", "d2", "d2", "d3", "d3"]),  # one of the input, one of the kernel
        ((1,), ["d0", "d1", "d2", "d2", "d3", "d3"]),
        ((0, 1), ["d2", "d3", "d3"]),  # the backward pass ends at d2
        ((0, 1, 2), ["d3"]),
        ((2, 3), ["d0", "d1", "d1", "d2", "d3"]),
    ],
)
def test_gradients_of_frozen_kernels_are_not_even_traced(frozen, layers):
    model = dense_net(model_class=Recorded)
    model.compile("sgd", LOSS, jit_compile=False)
    schedule = [float(k in frozen) for k in range(4)]
    fit(model, LayerOut(schedule=schedule), epochs=1)
    (graph,) = model.graphs
    found = [name.split("/")[-3 if name.count("/") > 3 else 2] for name in gradient_matmuls(graph)]
    found = sorted(part[:2] for part in found)
    assert found == layers


def test_batch_statistics_of_frozen_layers_follow_the_data():
    model = conv_net()
    model.compile("sgd", LOSS, jit_compile=False)
    snapshots = Snapshots()
    fit(model, LayerOut(schedule=[1.0, 1.0, 1.0, 0.0]), snapshots, epochs=1)
    for name, rests in (("gamma", True), ("beta", True), ("moving_mean", False)):
        before, after = (s[0][f"n0/{name}"] for s in (snapshots.begin, snapshots.end))
        assert np.array_equal(before, after) == rests, name


def test_a_pattern_that_returns_is_not_traced_again():
    model = dense_net(2, Recorded)
    model.compile("sgd", LOSS, jit_compile=False)
    layer_out = LayerOut(warmup_epochs=2, schedule=[0.5, 0.5], seed=1)
    fit(model, layer_out, epochs=14)
    patterns = set(layer_out.frozen.values())
    assert len(patterns) == 3  # none, the first, the second
    assert len(model.graphs) == 3
    fit(model, layer_out, epochs=14)
    assert len(model.graphs) == 5  # its own step outlives a fit


def test_the_number_of_kept_steps_is_bounded(monkeypatch):
    monkeypatch.setattr(layer_out_module, "_MAX_STEPS", 1)
    model = dense_net(2)
    model.compile("sgd", LOSS, run_eagerly=True)
    layer_out = LayerOut(schedule=[0.5, 0.5])
    kept = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: kept.append(len(layer_out._steps))
    )
    fit(model, layer_out, watch, epochs=10)
    assert max(kept) == 1 and len(set(layer_out.frozen.values())) > 2


def test_shares_are_as_expected():
    for schedule, probability in (("efreeze", None), ("dfreeze", 0.3), ("random", 0.8)):
        layer_out = LayerOut(schedule=schedule, freeze_probability=probability, seed=5)
        layer_out.follow(conv_net())
        observed = np.array([layer_out.share(layer_out.pattern(e)) for e in range(500)])
        error = observed.std() / 500**0.5
        assert abs(observed.mean() - layer_out.expected_share) < 4 * error
        patterns = np.array([layer_out.pattern(e) for e in range(500)])
        assert not patterns.all(axis=1).any()
        if schedule != "random":
            mean = 0.5 if probability is None else probability
            assert layer_out.probabilities.mean() == pytest.approx(mean)
            falls = np.diff(layer_out.probabilities) < 0
            assert falls.all() if schedule == "efreeze" else not falls.any()
    # The paper's list for 16 layers is this line, rounded.
    line = LayerOut(schedule="efreeze")._draw_probabilities(16)
    paper = [0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1]
    np.testing.assert_array_equal(line.round(1), paper)


def test_only_the_seed_and_the_epoch_decide():
    patterns = []
    for seed in (0, 0, 1):
        layer_out = LayerOut(seed=seed)
        layer_out.follow(dense_net())
        patterns.append([layer_out.pattern(epoch) for epoch in range(20)])
        assert layer_out.pattern(7) == patterns[-1][7]
    assert patterns[0] == patterns[1] != patterns[2]


@pytest.mark.slow
def test_a_resumed_fit_ends_equal(tmp_path):
    def compiled():
        keras.utils.set_random_seed(0)
        model = residual_net()
        model.compile(recipe_adamw(), LOSS, jit_compile=False, steps_per_execution=3)
        return model

    whole, broken = compiled(), compiled()
    history = fit(whole, LayerOut(seed=2, warmup_epochs=1)).history
    fit(broken, LayerOut(seed=2, warmup_epochs=1), Checkpoint(tmp_path / "c.npz"), epochs=3)
    resumed = compiled()
    checkpoint = Checkpoint(tmp_path / "c.npz")
    assert checkpoint.restore(resumed) == 3
    rest = fit(resumed, LayerOut(seed=2, warmup_epochs=1), initial_epoch=3).history
    assert rest["frozen_share"] == history["frozen_share"][3:]
    assert rest["loss"] == history["loss"][3:]
    for a, b in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_a_checkpoint_with_loss_scaling_is_restored(tmp_path):
    def compiled():
        model = dense_net()
        model.compile(keras.optimizers.LossScaleOptimizer(recipe_adamw()), LOSS, jit_compile=False)
        model.optimizer.build(model.trainable_variables)  # as before every training here
        return model

    trained, resumed = compiled(), compiled()
    fit(trained, Checkpoint(tmp_path / "c.npz"), epochs=1)
    assert Checkpoint(tmp_path / "c.npz").restore(resumed) == 1
    for a, b in zip(trained.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize("way", ["end", "another callback", "a step"])
def test_everything_thaws(way):
    model = dense_net()
    model.compile("sgd", LOSS, jit_compile=False)
    callbacks = [LayerOut(schedule=[1.0, 1.0, 1.0, 0.0])]
    if way == "end":
        fit(model, *callbacks, epochs=1)
    elif way == "another callback":
        with pytest.raises(KeyboardInterrupt):
            fit(model, *callbacks, Stops(), epochs=1)
    else:
        with pytest.raises(Exception, match="nothing in here"):

            def broken():
                yield X[:8], Y[:8]
                raise ValueError("nothing in here")

            model.fit(broken(), steps_per_epoch=2, verbose=0, callbacks=callbacks)  # fmt: skip
    assert all(w.trainable and w.value.trainable for w in model.weights)
    assert all(layer.trainable for layer in model.layers)
    before = [np.array(w) for w in model.weights]
    fit(model, epochs=1)
    for old, new in zip(before, model.weights, strict=True):
        assert (old != np.array(new)).any(), new.path


def test_validation_and_saved_models_see_nothing_frozen(tmp_path):
    model = dense_net()
    model.compile("sgd", LOSS, jit_compile=False)
    path = tmp_path / "model.keras"
    saver = keras.callbacks.ModelCheckpoint(path)
    fit(model, LayerOut(schedule=[1.0, 1.0, 1.0, 0.0]), saver, epochs=1, validation_data=(X, Y))
    assert len(keras.saving.load_model(path).trainable_weights) == 8


def test_mixed_precision_with_loss_scaling():
    model = ResidualMLP(num_classes=3, width=8, num_blocks=1, seed=1, dtype="mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(recipe_adamw()), LOSS, jit_compile=False)
    snapshots = Snapshots()
    fit(model, LayerOut(schedule=[1.0, 0.0, 1.0, 0.0]), snapshots, epochs=1)
    for name, rests in (("dense_0", True), ("dense_1", False)):
        path = f"residual_0_0/{name}/kernel"
        assert np.array_equal(snapshots.begin[0][path], snapshots.end[0][path]) == rests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"freeze_probability": 1.0}, r"`freeze_probability` must be in \[0, 1\)"),
        ({"freeze_probability": -0.1}, r"`freeze_probability` must be in \[0, 1\)"),
        ({"schedule": "often"}, "`schedule` must be one of 'random', 'efreeze', 'dfreeze'"),
        ({"schedule": [0.5, 1.5]}, r"or probabilities in \[0, 1\]"),
        ({"schedule": []}, r"or probabilities in \[0, 1\]"),
        ({"schedule": [1, 1]}, "must leave a layer that is not always frozen"),
        ({"schedule": [0.5, 0.1], "freeze_probability": 0.5}, "must be left out"),
        ({"warmup_epochs": -1}, "`warmup_epochs` must be an integer >= 0"),
        ({"seed": None}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        LayerOut(**arguments)


@pytest.mark.parametrize(
    ("arguments", "optimizer", "message"),
    [
        (
            {"schedule": [0.5] * 3},
            "sgd",
            r"must have 4 probabilities, one per layer with a kernel \(\w+, \w+, \w+, ",
        ),
        ({"schedule": [1, 1, 1, 1 - 1e-9]}, "sgd", "`schedule` must leave a layer that is not nea"),
        ({"freeze_probability": 1 - 1e-9}, "sgd", "`freeze_probability` must leave a layer"),
        ({"warmup_epochs": 2}, "sgd", "must be less than the 2 epochs of the fit"),
        ({}, keras.optimizers.SGD(use_ema=True), "`use_ema` must be off for LayerOut"),
        (
            {},
            keras.optimizers.SGD(gradient_accumulation_steps=2),
            "`gradient_accumulation_steps` must be off",
        ),
    ],
)
def test_what_does_not_suit_the_model(arguments, optimizer, message):
    model = dense_net()
    model.compile(optimizer, LOSS, jit_compile=False)
    with pytest.raises(InputError, match=message):
        fit(model, LayerOut(**arguments), epochs=2)


def test_a_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Softmax()])
    with pytest.raises(InputError, match="must be built and have a trainable kernel"):
        LayerOut().follow(model)
