"""Training: an objective, a step, a loop over steps, and `fit` as a thin assembly of them."""
