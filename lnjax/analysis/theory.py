"""What theory says about a Transformer before training, as functions to compare with.

Source: Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, arXiv:2002.04745.
Its setting: one head, W_Q = W_K = 0 (uniform attention), square matrices with entries N(0, 1/d),
ReLU, no biases, LN gain 1, inputs N(0, I).
"""

import numpy as np
from jaxtyping import Float


def post_ln_input_of_mlp_norm() -> float:
    """E||x||^2 / d at the input of Post-LN's second norm, at every layer (Lemma 2)."""
    return 1.5


def pre_ln_stream_bounds(
    layer: Float[np.ndarray, " layer"],
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]:
    """Lower and upper bound of E||x||^2 / d after `layer` Pre-LN blocks (Lemma 2).

    The upper line is reached where attention passes its input on (sequence length 1), the lower
    one where it averages many independent tokens away.
    """
    layer = np.asarray(layer, np.float64)
    return 1 + layer / 2, 1 + 3 * layer / 2


def last_gradient_exponents() -> dict[str, float]:
    """Exponent p of ||dL/dW_out of the last MLP|| ~ depth^p (Theorem 1)."""
    return {"post_ln": 0.0, "pre_ln": -0.5}
