"""Values and random numbers -> keys whose order is a sample without replacement (Gumbel top-k). Imports no torch.

Shape suffixes: N documents, D domains.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_LEAST, _MOST = 2.0**-64, 1 - 2.0**-53


def gumbel_keys(values_N: Floats, uniform_N: Floats, codes_N: npt.NDArray[np.int32], *, temperature: float) -> Floats:
    """`z / temperature + g`, z the value in standard deviations of its domain and g Gumbel noise made of `uniform_N`.

    The k highest keys of a domain are k documents drawn without replacement, each time with a probability in
    proportion to exp(z / temperature) among those that are left (Yellott 1977).
    """
    # Divided by a power of two, which changes no digit: squares of values such as 1e200 would be infinite.
    values_N = np.ldexp(values_N, -int(np.frexp(np.abs(values_N).max(initial=0.0))[1]))
    counts_D = np.maximum(np.bincount(codes_N), 1)
    centred_N = values_N - (np.bincount(codes_N, weights=values_N) / counts_D)[codes_N]
    deviation_D = np.sqrt(np.bincount(codes_N, weights=centred_N**2) / counts_D)
    # In a domain of equal values every document is as likely as any other.
    z_N = centred_N / np.where(deviation_D > 0, deviation_D, 1.0)[codes_N]
    noise_N: Floats = -np.log(-np.log(np.clip(uniform_N, _LEAST, _MOST)))
    return z_N / temperature + noise_N
