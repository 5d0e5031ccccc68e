"""Agents from elsewhere: read a foreign file, fit its tensors to a described network, save an agent of this project.

``containers`` reads files without executing anything in them, ``layouts`` says what a network's tensors are called and
turns them into an :class:`~policy_distillation.networks.Agent`, ``libraries`` describes the libraries that people train
DQNs with, and ``agents`` puts the three together.
"""
