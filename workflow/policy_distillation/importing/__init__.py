"""Agents from elsewhere: read a foreign file, fit its tensors to a described network, save an agent of this project.

``containers`` reads files without executing anything in them. ``libraries`` holds a declaration (``declarations``) of
every agent that is known, ``recognition`` finds the one that fits, or ``mappings`` reads one that the user wrote;
``refusals`` says what cannot be imported and why. ``folding`` turns the tensors into an
:class:`~policy_distillation.networks.Agent`, and ``agents`` puts it all together.
"""
