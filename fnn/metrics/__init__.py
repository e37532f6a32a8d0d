"""What is measured: values per example, and streaming metrics that are exact over a data set.

A metric per example is a function ``metric(y, target)``, as the losses of `optax.losses` are; its weighted mean is
reported. What is no mean over examples, such as the area under a curve, is a `Metric`: statistics of each batch, which
are merged.
"""
