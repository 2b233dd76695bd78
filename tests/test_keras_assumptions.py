"""Facts about Keras that this package stands on: if one changes, this says so first."""

import keras
import numpy as np

from kerasmlp import ICLayer
from kerasmlp.initializers import FanInUniform

X = np.random.default_rng(0).normal(3, 2, size=(32, 4)).astype("float32")


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_training_true_overwrites_moving_statistics():
    norm = keras.layers.BatchNormalization()
    norm(X)
    before = array(norm.moving_mean)
    norm(X, training=True)
    assert (array(norm.moving_mean) != before).any()


def test_dropout_forced_in_a_functional_model_is_switched_off_by_predict():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(inputs, training=True))
    np.testing.assert_array_equal(model.predict(X, verbose=0), X)


def test_predict_passes_training_false_but_leaves_sampling_alone():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ICLayer(dropout_rate=0.5)(inputs, sampling=True))
    assert (model.predict(X, verbose=0) == 0).any()


def test_seed_generators_are_variables_of_the_model_but_not_weights():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ICLayer(dropout_rate=0.5, seed=3)(inputs))
    states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    assert len(states) == 1
    assert not any(v is states[0] for v in model.weights)
    assert array(states[0]).tolist() == [3, 0]


def test_sublayers_without_a_policy_ignore_the_parents():
    class Parent(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.child = keras.layers.Dense(2)

    assert Parent(dtype="mixed_float16").child.dtype_policy.name == "float32"


def test_softmax_under_mixed_float16_returns_float16():
    layer = keras.layers.Activation("softmax", dtype="mixed_float16")
    assert keras.backend.standardize_dtype(layer(X).dtype) == "float16"


def test_fan_in_uniform_equals_variance_scaling():
    ours = array(FanInUniform(seed=0)((300, 200)))
    theirs = array(
        keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=0)((300, 200))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_early_stopping_forgets_when_training_begins():
    stopper = keras.callbacks.EarlyStopping("val_loss", mode="min")
    stopper.wait = 3
    stopper.on_train_begin()
    assert stopper.wait == 0


def test_a_callbacks_logs_reach_the_history_and_later_callbacks():
    seen = []

    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_new"] = 1.5

    class Sees(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_new"])

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(X, X[:, :1], verbose=0, callbacks=[Adds(), Sees()])
    assert seen == [1.5] and history.history["val_new"] == [1.5]


def test_weight_decay_can_leave_out_biases_and_batch_norm():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    decayed = [v.name for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    assert decayed == ["kernel"]
