"""Every operation in plain PyTorch, written to be read beside the paper. Works in any floating dtype, on any device, and under autograd."""
