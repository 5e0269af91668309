"""Results of the literature, repeated: the paper's number beside ours."""
