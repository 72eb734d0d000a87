"""Sparse continual learning (SparCL, arXiv 2209.09476): a stream of tasks, a buffer, a network that stays small.

``learner.Learner`` runs a ``recipe.ContinualRecipe`` over a ``streams.Stream``. Each part is a file of its own and can
be used alone: ``buffer`` (replay), ``masks`` and ``channels`` (TDM), ``removal`` (DDR), ``gradients`` (DGM), ``flops``
(what training costs), ``evaluate`` (what is known and what was forgotten). Needs edgekit-sdk[train].
"""
