"""Solutions that nobody trained: weights set by formula, in the very models that are trained.

Each `set_…` overwrites all weights of a freshly built model. That a model *has* a solution, and of which size, is then
a fact apart from whether training finds it. Transition tables and token numbers come in as arrays: models know no task.
"""
