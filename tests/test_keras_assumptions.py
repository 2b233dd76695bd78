"""Facts about Keras that this package stands on: if one changes, this says so first."""

import keras
import numpy as np
import pytest

from kerasmlp import ICLayer
from kerasmlp.layers.initializers import FanInUniform

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


# ---- Keras Tuner, where it is installed


@pytest.fixture
def tuner(tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")

    class Oracle(keras_tuner.Oracle):
        saved = ()

        def populate_space(self, trial_id):
            return {"status": "RUNNING", "values": {}}

        def _save_trial(self, trial):
            self.saved = (*self.saved, trial.trial_id)

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        error = None

        def run_trial(self, trial):
            if self.error:
                raise self.error
            return {"loss": 1.0}

    oracle = Oracle(keras_tuner.Objective("loss", "min"), max_trials=2)
    oracle.verbose = 0
    return Tuner(oracle, directory=tmp_path, project_name="project")


def test_an_oracle_saves_its_trials_by_one_method(tuner, tmp_path):
    tuner.search()
    assert set(tuner.oracle.saved) == {"0", "1"}
    assert {p.name for p in tmp_path.rglob("*.json")} == {"oracle.json", "tuner0.json"}


def test_an_oracles_state_holds_the_trials_that_are_run_first(tuner):
    oracle = tuner.oracle
    assert oracle.create_trial("a").trial_id == "0"
    state = oracle.get_state()
    assert (state["ongoing_trials"], state["retry_queue"]) == ({"a": "0"}, [])
    oracle.set_state(state | {"ongoing_trials": {}, "retry_queue": ["0"]})
    assert oracle.create_trial("b").trial_id == "0"
    assert oracle.get_state()["ongoing_trials"] == {"b": "0"}


def test_an_oracle_knows_the_tuners_that_have_not_heard_of_its_end(tuner):
    oracle = tuner.oracle
    oracle.create_trial("a"), oracle.create_trial("b")
    assert oracle.tuner_ids == {"a", "b"}
    assert oracle.create_trial("c").status == "STOPPED" and oracle.tuner_ids == {"a", "b"}


def test_only_a_fatal_error_ends_a_search(tuner):
    from keras_tuner.errors import FatalError

    tuner.error = FatalError()
    with pytest.raises(FatalError):
        tuner.search()
    tuner.error = OSError()
    tuner.search()
    assert [t.status for t in tuner.oracle.trials.values()] == ["FAILED", "FAILED"]


def test_a_name_with_chief_in_it_makes_a_chief(tuner, monkeypatch):
    oracles = {}
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    for name in ("chief", "worker-on-chief01", "worker"):
        monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
        oracles[name] = type(tuner)(tuner.oracle, directory=tuner.directory).oracle
    assert oracles["chief"] is oracles["worker-on-chief01"] is tuner.oracle
    assert oracles["worker"] is not tuner.oracle


def test_a_trial_keeps_its_status_over_the_wire(tuner):
    trial = tuner.oracle.create_trial("a")
    trial.status = "STOPPED"
    assert type(trial).from_proto(trial.to_proto()).status == "STOPPED"
