"""The oracle's closed forms against released models, the parameter layout and hand arithmetic."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracle_params import AFFINE, MAX_LENGTH, VOCABULARY, random_params, size
from oracles import PLACEMENTS, cross_entropy, deepnorm_constants, init_std, parameter_count


def test_deepnorm_constants_and_initial_deviations():
    assert_allclose(deepnorm_constants(8), (2.0, 8**-0.5))
    sizes = {"width": 64, "heads": 4, "kv_heads": 2, "mlp_width": 192, "activation": "swiglu"}
    plain, deep = (init_std(placement, 8, **sizes) for placement in ("pre_ln", "deepnorm"))
    assert_allclose(plain["attention.query"], math.sqrt(2 / 128))
    assert_allclose(plain["attention.key"], math.sqrt(2 / 96))
    assert_allclose(plain["mlp.gate"], math.sqrt(2 / 256))
    scaled = {name for name in deep if not math.isclose(deep[name], plain[name])}
    assert scaled == {"attention.value", "attention.output", "mlp.in", "mlp.gate", "mlp.out"}
    assert_allclose([deep[name] / plain[name] for name in scaled], 8**-0.5)


@pytest.mark.parametrize("norm", AFFINE)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_parameter_count_equals_the_leaves(placement, norm):
    options = {"depth": 4, "norm": norm, "tied": norm != "rmsnorm"}
    params = random_params(placement, gated=True, learned=True, **options)
    sizes = {"width": 8, "heads": 4, "kv_heads": 2, "mlp_width": 12, "vocab": VOCABULARY}
    sizes |= {"activation": "swiglu", "positions": "learned", "max_length": MAX_LENGTH}
    assert parameter_count(placement, **sizes, **options) == size(params)


def test_parameter_counts_of_released_models():
    gpt2 = {"depth": 12, "width": 768, "heads": 12, "vocab": 50257}
    gpt2 |= {"positions": "learned", "max_length": 1024}
    assert parameter_count("pre_ln", **gpt2) == 124_439_808
    llama = {
        "norm": "rmsnorm",
        "activation": "swiglu",
        "tied": False,
        "bias": False,
        "vocab": 32000,
    }
    seven = {"depth": 32, "width": 4096, "heads": 32, "mlp_width": 11008}
    assert parameter_count("pre_ln", **seven, **llama) == 6_738_415_616
    seventy = {"depth": 80, "width": 8192, "heads": 64, "kv_heads": 8, "mlp_width": 28672}
    assert parameter_count("pre_ln", **seventy, **llama) == 68_976_648_192


def test_cross_entropy_in_nats():
    logits = np.zeros((1, 3, 7))
    targets = np.array([[0, 3, 6]])
    assert_allclose(cross_entropy(logits, targets), math.log(7))
    logits[0, 0, 0] = 1000.0
    assert_allclose(cross_entropy(logits, targets), 2 / 3 * math.log(7))
    assert_allclose(cross_entropy(logits, targets, np.array([[1.0, 3.0, 0.0]])), 0.75 * math.log(7))
