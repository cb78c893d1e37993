"""Stochastic gradient noise: measuring it, fitting laws to it, and following what it does to SGD."""
