"""The benchmark suite: named workloads of real models, measured against the ceilings of the machine and against PyTorch's own ways in one process.

A *workload* (:mod:`workload`) is a computation with its inputs; a *contender* is one way to compute it: ours, a *peer* that computes the same thing, or a *part* that
computes less or something else of known cost (the plain products of a loss). Contenders are timed in turn, call by call (:mod:`timing`); every result is held against
float64 (:mod:`match`) and no speed is shown for one that fails.
"""
