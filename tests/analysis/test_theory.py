"""The theory's numbers against a Monte-Carlo simulation in NumPy of the setting they are about.

Xiong et al. 2020 (arXiv:2002.04745), section 3.2: attention is the mean over the tokens times W_V,
the feed-forward layer relu(x W_1) W_2, all matrices square with entries N(0, 1/d), LN gain 1.
"""

import numpy as np
import pytest

from lnjax.analysis import theory

WIDTH = 48


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True))


def matrix(rng):
    return rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)


def attention(x, rng):
    return np.broadcast_to(x.mean(0), x.shape) @ matrix(rng)


def mlp(x, rng):
    """The output, and what enters W_2."""
    hidden = np.maximum(x @ matrix(rng), 0)
    return hidden @ matrix(rng), hidden


def pre_ln(depth, tokens, rng):
    """Streams after 0, 1, ... blocks, and what enters the last W_2."""
    streams, hidden = [rng.standard_normal((tokens, WIDTH))], None
    for _ in range(depth):
        x = streams[-1] + attention(layer_norm(streams[-1]), rng)
        branch, hidden = mlp(layer_norm(x), rng)
        streams.append(x + branch)
    return np.array(streams), hidden


def post_ln(depth, tokens, rng):
    """Inputs of the second norm of every block, and what enters the last W_2."""
    x, inputs, hidden = rng.standard_normal((tokens, WIDTH)), [], None
    for _ in range(depth):
        x = layer_norm(x + attention(x, rng))
        branch, hidden = mlp(x, rng)
        inputs.append(x + branch)
        x = layer_norm(inputs[-1])
    return np.array(inputs), hidden


def mean_square(network, depth, tokens, trials=150):
    """E ||x||^2 / d of each stream, and the standard error."""
    squares = [
        (network(depth, tokens, np.random.default_rng(trial))[0] ** 2).mean((1, 2))
        for trial in range(trials)
    ]
    return np.mean(squares, 0), np.std(squares, 0) / np.sqrt(trials)


def last_gradient(network, depth, trials=60):
    """||dL/dW_2|| of the last block, for a random gradient at the output of the last norm."""
    norms = []
    for trial in range(trials):
        rng = np.random.default_rng([depth, trial])
        streams, hidden = network(depth, 1, rng)
        x, g = streams[-1], rng.standard_normal((1, WIDTH))
        y = layer_norm(x)
        # Transposed Jacobian of the last norm: (g - mean g - y mean(g y)) / sigma.
        back = (g - g.mean() - y * (g * y).mean()) / x.std()
        norms.append(np.linalg.norm(hidden) * np.linalg.norm(back))
    return np.mean(norms)


@pytest.mark.parametrize("tokens", [1, 12])
def test_the_input_of_the_second_post_norm(tokens):
    found, error = mean_square(post_ln, 6, tokens)
    np.testing.assert_array_less(np.abs(found - theory.post_ln_input_of_mlp_norm()), 4 * error)
    assert error.max() < 0.05


def test_one_token_reaches_the_upper_line_of_pre_ln():
    found, error = mean_square(pre_ln, 6, tokens=1, trials=400)
    lower, upper = theory.pre_ln_stream_bounds(np.arange(7.0))
    np.testing.assert_array_less(np.abs(found - upper), 4 * error)
    assert error.max() < 0.15
    np.testing.assert_array_less(lower[1:] + 4 * error[1:], found[1:])


def test_many_tokens_stay_between_the_lines_of_pre_ln():
    found, error = mean_square(pre_ln, 6, tokens=200, trials=30)
    lower, upper = theory.pre_ln_stream_bounds(np.arange(7.0))
    assert (lower - 4 * error <= found).all() and (found[1:] < upper[1:] - 4 * error[1:]).all()
    # In the first block, where tokens are independent, attention averages them away.
    assert abs(found[1] - lower[1]) < 1 / 200 + 4 * error[1]


def test_bounds_of_whole_numbers_and_shapes():
    lower, upper = theory.pre_ln_stream_bounds(np.array([0.0, 2.0, 4.0]))
    assert lower.tolist() == [1.0, 2.0, 3.0] and upper.tolist() == [1.0, 4.0, 7.0]


@pytest.mark.parametrize(("name", "network"), [("pre_ln", pre_ln), ("post_ln", post_ln)])
def test_exponents_of_the_last_gradient(name, network):
    depths = np.array([12, 24, 48, 96])
    norms = [last_gradient(network, depth) for depth in depths]
    slope = np.polyfit(np.log(depths), np.log(norms), 1)[0]
    assert abs(slope - theory.last_gradient_exponents()[name]) < 0.06
