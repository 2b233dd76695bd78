"""Products of passes in bfloat16: what they compute, how far means move, where they are refused."""

import keras
import numpy as np
import pytest

from kerasmlp import ResidualMLP, Sampler, predict_samples, predict_uncertainty
from kerasmlp.layers.bfloat16 import bfloat16_product, cpu_multiplies_bfloat16
from kerasmlp.utils.checks import InputError

needs_units = pytest.mark.skipif(
    not cpu_multiplies_bfloat16(), reason="no unit of this processor multiplies bfloat16"
)


def rounded(x):
    """To the nearest number of 8 bits, ties to even, as float32."""
    bits = x.view(np.uint32)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def test_operands_are_rounded_and_sums_are_not():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype("float32") for s in ((64, 512), (512, 16)))

    class Product(keras.layers.Layer):
        def call(self, inputs):
            return bfloat16_product(inputs, keras.ops.convert_to_tensor(kernel))

    model = keras.Sequential([keras.Input((512,)), Product()])
    model.compile(jit_compile=True)
    expected = rounded(x).astype(np.float64) @ rounded(kernel).astype(np.float64)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_what_the_processor_has(tmp_path):
    for flags, has in (
        ("flags : fpu avx2\n", False),
        ("flags : fpu avx512_bf16\nflags : fpu avx512_bf16\n", True),
        ("flags : avx512_bf16\nflags : fpu\n", False),
        ("Features : fp asimd bf16\n", True),
        ("", False),
    ):
        path = tmp_path / f"cpuinfo{len(flags)}{has}"
        path.write_text(flags)
        assert cpu_multiplies_bfloat16(path) is has
    assert not cpu_multiplies_bfloat16(tmp_path / "absent")


def model_and_rows():
    model = ResidualMLP(num_classes=5, width=64, num_blocks=2, dropout_rate=0.2, seed=0)
    return model, np.random.default_rng(1).normal(size=(40, 64)).astype("float32")


@needs_units
@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_the_mean_moves_by_less_than_its_error(masks):
    model, x = model_and_rows()
    how = {"num_samples": 512, "masks": masks, "seed": 3}
    whole, half = (Sampler(model, products=p) for p in ("float32", "bfloat16"))
    error = np.sqrt(predict_samples(whole, x, **how).var(axis=0).mean() / 512)
    means = [predict_uncertainty(s, x, **how)["mean"] for s in (whole, half)]
    off = np.sqrt(((means[0] - means[1]) ** 2).mean())
    assert 0 < off < error / 2
    again = predict_uncertainty(Sampler(model, products="bfloat16"), x, **how)["mean"]
    np.testing.assert_array_equal(means[1], again)


@needs_units
def test_members_too():
    model = ResidualMLP(num_classes=3, width=32, members=2, dropout_rate=0.2, seed=[0, 1])
    x = np.random.default_rng(1).normal(size=(8, 32)).astype("float32")
    both = [
        predict_uncertainty(Sampler(model, products=p), x, num_samples=64)["mean"]
        for p in ("float32", "bfloat16")
    ]
    np.testing.assert_allclose(*both, atol=0.02)


def test_another_word_is_refused_and_a_processor_without_units():
    model, _ = model_and_rows()
    with pytest.raises(InputError, match="products"):
        Sampler(model, products="float16")
    if not cpu_multiplies_bfloat16():
        with pytest.raises(InputError, match="products.* must be float32 where no unit"):
            Sampler(model, products="bfloat16")


@needs_units
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_models_of_every_type(policy, masks):
    """So wide and with so few dropped that shared masks take off what these gave."""
    how = {"width": 256, "num_blocks": 1, "dropout_rate": 0.02, "seed": 0, "dtype": policy}
    model = ResidualMLP(num_classes=3, **how)
    x = np.random.default_rng(2).normal(size=(32, 256)).astype("float32")
    whole, half = (
        predict_samples(Sampler(model, products=p), x, num_samples=8, masks=masks)
        for p in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(half, whole, atol=0.05)
    assert whole.std(axis=0).max() > 1e-4
