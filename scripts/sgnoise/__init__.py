"""Stochastic gradient noise: measuring it, fitting laws to it, and what it does to SGD."""
