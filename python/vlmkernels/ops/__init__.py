"""The operators: one module per operation with its public functions, checks, torch.library registration and autograd."""
